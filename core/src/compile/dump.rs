//! Every pass as stable text, for tests and for `TAPEFLOW_DUMP=fuse` (or a comma-separated list, or `all`).

use std::fmt::Write;

use super::describe;
use super::expr::ExprSource;
use super::fuse::{Draft, GroupDraft, Step};
use super::place::Cut;
use super::plan::{Place, Plan};
use super::schedule::Ordered;
use super::world::{Id, World};
use crate::device::Device;

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
                    Draft::Kernel { kernel, reads, write, prologue, epilogue } => {
                        let kernel = format!("{kernel:?}");
                        let kind = kernel.split('(').next().unwrap_or_default().to_owned();
                        let reads: Vec<String> = reads.iter().map(|x| format!("%{}", x.0)).collect();
                        let write = write.map_or("-".into(), |x| format!("%{}", x.0));
                        let _ = writeln!(out, "{i}: {write} = {kind} {} // {name}", reads.join(" "));
                        for (operand, group) in prologue {
                            let _ = writeln!(out, "    first operand {operand}: {}", describe_group(group));
                            function(&mut out, group);
                        }
                        for group in epilogue {
                            let _ = writeln!(out, "    then {}", describe_group(group));
                            function(&mut out, group);
                        }
                    }
                    Draft::Copy { from, to } => {
                        let _ = writeln!(out, "{i}: %{} = copy %{} to {}", to.0, from.0, world.ty[to.index()].device);
                    }
                    _ => {
                        for g in step.groups() {
                            let _ = writeln!(out, "{i}: {} // {name}", describe_group(g));
                        }
                        step.groups().iter().take(1).for_each(|g| function(&mut out, g));
                    }
                }
            }
            out
        });
    }

    pub fn places(&mut self, pass: &str, levels: &[Cut]) {
        self.add(pass, || {
            let mut out = String::new();
            for (i, (parts, copies)) in levels.iter().enumerate() {
                for (&on, steps) in parts {
                    let written: Vec<String> =
                        steps.iter().flat_map(Step::writes).map(|x| format!("%{}", x.0)).collect();
                    let _ = writeln!(out, "level {i}: {} computes {}", Device(on), written.join(" "));
                }
                for (from, to) in copies {
                    let _ = writeln!(out, "after level {i}: %{} is copied to %{}", from.0, to.0);
                }
            }
            out
        });
    }

    pub fn plan(&mut self, pass: &str, world: &World, plan: &Plan) {
        self.add(pass, || {
            let mut out = format!("arena {} bytes\n", plan.arena_bytes);
            for (&id, &(first, last)) in &plan.live {
                let (place, bytes) = (plan.place[&id], world.ty[id.index()].bytes());
                let _ = writeln!(out, "%{}: {bytes} bytes at {place:?} during {first}..={last}", id.0);
            }
            for (step, &(offset, bytes)) in plan.partial.iter().enumerate().filter(|(_, p)| p.1 > 0) {
                let _ = writeln!(out, "partial results: {bytes} bytes at {:?} during {step}", Place::Arena(offset));
            }
            out
        });
    }

    pub fn program(&mut self, pass: &str, arena_bytes: usize, steps: &[Ordered]) {
        self.add(pass, || {
            let mut out = format!("arena {arena_bytes} bytes\n");
            for (i, Ordered { name, operands, waits, dependents, .. }) in steps.iter().enumerate() {
                let _ = writeln!(out, "{i}: {name} {operands:?} waits for {}, then {dependents:?}", waits.len());
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

fn function(out: &mut String, group: &GroupDraft) {
    for line in group.expr.function.to_string().lines() {
        let _ = writeln!(out, "    {line}");
    }
}

fn describe_group(g: &GroupDraft) -> String {
    let sources = g.expr.sources.iter().map(|s| match s {
        ExprSource::Node { id, layout } => format!("%{}{layout:?}", id.0),
        ExprSource::Scalar { slot } => format!("scalar {slot}"),
        ExprSource::Iota(layout) => format!("iota {layout:?}"),
        ExprSource::Random { slot, ordinal: 0, .. } => format!("random {slot}"),
        ExprSource::Random { slot, ordinal, .. } => format!("random {slot}, draw {ordinal}"),
    });
    let sources: Vec<String> = sources.collect();
    let outputs: Vec<String> = g.outputs.iter().map(|(id, kind)| format!("%{} {kind:?}", id.0)).collect();
    format!("group {:?} ({}) -> {}", &g.expr.space[..], sources.join(", "), outputs.join(", "))
}
