//! Every pass as stable text, for tests and for `TAPEFLOW_DUMP=fuse` (or a comma-separated list, or `all`).

use std::fmt::Write;

use super::describe;
use super::expr::ExprSource;
use super::fuse::{Draft, Step};
use super::world::{Id, World};
use crate::program::Program;

/// Collects the passes' texts.
pub(super) struct Dump {
    printed: String,
    text: String,
    keep: bool,
}

thread_local! {
    static KEPT: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// The text of every pass of what `f` compiles on this thread.
pub fn dumped<T>(f: impl FnOnce() -> T) -> (T, String) {
    KEPT.set(Some(String::new()));
    let out = f();
    (out, KEPT.take().unwrap_or_default())
}

impl Dump {
    pub fn requested() -> Dump {
        let printed = std::env::var("TAPEFLOW_DUMP").unwrap_or_default();
        Dump { printed, text: String::new(), keep: KEPT.with_borrow(Option::is_some) }
    }

    fn add(&mut self, pass: &str, text: impl FnOnce() -> String) {
        let printed = self.printed.split(',').any(|p| p == pass || p == "all");
        if !printed && !self.keep {
            return;
        }
        let text = format!("== {pass}\n{}", text());
        if printed {
            eprintln!("{text}");
        }
        self.text += &text;
    }

    pub fn world(&mut self, pass: &str, world: &World, roots: &[Id]) {
        self.add(pass, || {
            let mut out = String::new();
            for id in world.topological(roots, pass == "record") {
                let i = id.index();
                let inputs: String = world.inputs[i].iter().map(|x| format!(" %{}", x.0)).collect();
                let name = match world.bound[i] {
                    Some(input) => format!("input {input}"),
                    None => world.op[i].name().into_owned(),
                };
                let root = if roots.contains(&id) { " *" } else { "" };
                let _ = writeln!(out, "%{}: {} = {name}{inputs}{root}", id.0, describe(&world.ty[i]));
            }
            out
        });
    }

    pub fn steps(&mut self, pass: &str, world: &World, steps: &[Step]) {
        self.add(pass, || {
            let mut out = String::new();
            for (i, step) in steps.iter().enumerate() {
                let name = world.op[step.node.index()].name();
                match &step.draft {
                    Draft::Kernel { kernel, reads, write } => {
                        let kernel = format!("{kernel:?}");
                        let kind = kernel.split('(').next().unwrap_or_default().to_owned();
                        let reads: Vec<String> = reads.iter().map(|x| format!("%{}", x.0)).collect();
                        let write = write.map_or("-".into(), |x| format!("%{}", x.0));
                        let _ = writeln!(out, "{i}: {write} = {kind} {} // {name}", reads.join(" "));
                    }
                    Draft::Group(g) => {
                        let sources = g.expr.sources.iter().map(|s| match s {
                            ExprSource::Node { id, layout } => {
                                format!("%{}{:?}+{}", id.0, &layout.strides[..], layout.offset)
                            }
                            ExprSource::Scalar { slot } => format!("scalar {slot}"),
                            ExprSource::Iota(layout) => format!("iota {:?}+{}", &layout.strides[..], layout.offset),
                            ExprSource::Random { slot, .. } => format!("random {slot}"),
                        });
                        let sources: Vec<String> = sources.collect();
                        let outputs: Vec<String> = g.outputs.iter().map(|(id, k)| format!("%{} {k:?}", id.0)).collect();
                        let _ = writeln!(out, "{i}: group {:?} ({}) // {name}", &g.expr.space[..], sources.join(", "));
                        for line in g.expr.function.to_string().lines() {
                            let _ = writeln!(out, "    {line}");
                        }
                        let _ = writeln!(out, "    -> {}", outputs.join(", "));
                    }
                }
            }
            out
        });
    }

    pub fn program(&mut self, pass: &str, program: &Program) {
        self.add(pass, || {
            let mut out = format!("arena {} bytes\n", program.arena_bytes);
            for (i, step) in program.steps.iter().enumerate() {
                let operands = &program.operands[step.operands.clone()];
                let _ = writeln!(
                    out,
                    "{i}: {} {operands:?} waits for {}, then {:?}",
                    step.name, step.dependencies, step.dependents
                );
            }
            out
        });
    }

    pub fn finish(self) -> String {
        if self.keep {
            KEPT.with_borrow_mut(|k| k.get_or_insert_default().push_str(&self.text));
        }
        self.text
    }
}
