//! Expressions: a function over an iteration space whose sources are known as layouts. What fusion composes.
//! Owns composition and what views do to an expression; decides nothing about when to store.

use tapeflow_ir::{Builder, DType, Extent, Op as ScalarOp, ScalarFn, Type, V};

use super::world::Id;
use crate::ops::cut::Cut;
use crate::ops::kernel::{identity, is_row};
use crate::program::kernel::{Dims, Layout};

/// Where one parameter of an expression comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ExprSource {
    /// A value in memory, contiguous over its own shape.
    Node { id: Id, layout: Layout },
    /// A host float.
    Scalar { slot: usize },
    /// An index.
    Iota(Layout),
    /// Random words.
    Random { slot: usize, ordinal: u32, layout: Layout },
}

impl ExprSource {
    fn map(&self, f: impl FnOnce(&Layout) -> Option<Layout>) -> Option<ExprSource> {
        Some(match self {
            ExprSource::Node { id, layout } => ExprSource::Node { id: *id, layout: f(layout)? },
            ExprSource::Scalar { slot } => ExprSource::Scalar { slot: *slot },
            ExprSource::Iota(layout) => ExprSource::Iota(f(layout)?),
            ExprSource::Random { slot, ordinal, layout } => {
                ExprSource::Random { slot: *slot, ordinal: *ordinal, layout: f(layout)? }
            }
        })
    }
}

/// One value for every index of `space`, not yet computed.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub space: Dims,
    /// Of one output; one parameter per source.
    pub function: ScalarFn,
    pub sources: Vec<ExprSource>,
    /// The nodes that it computes, each once: what profiles call it by.
    pub parts: Vec<Id>,
}

/// A value of extent `Lane`.
pub(crate) fn lane(dtype: DType) -> Type {
    Type { dtype, extent: Extent::Lane }
}

/// The function that returns its only parameter.
pub(crate) fn identity_fn(ty: Type) -> ScalarFn {
    identity(ty)
}

/// The function with every parameter's extent replaced, and what follows from them.
pub(crate) fn retype(function: &ScalarFn, extent: impl Fn(usize) -> Extent) -> ScalarFn {
    let mut out = function.clone();
    for (i, ty) in out.inputs.iter_mut().enumerate() {
        ty.extent = extent(i);
    }
    for v in 0..out.values.len() {
        let of = |x: V| out.values[x.0 as usize].1.extent;
        let extent = match out.values[v].0 {
            ScalarOp::Input(i) => out.inputs[i as usize].extent,
            ScalarOp::Const(_) | ScalarOp::Reduce(..) | ScalarOp::Length => Extent::Row,
            ScalarOp::Unary(_, a) | ScalarOp::Cast(a) | ScalarOp::Detach(a) => of(a),
            ScalarOp::Binary(_, a, b) | ScalarOp::Compare(_, a, b) => of(a).max(of(b)),
            ScalarOp::Select(a, b, c) | ScalarOp::MulAdd(a, b, c) => of(a).max(of(b)).max(of(c)),
        };
        out.values[v].1.extent = extent;
    }
    out
}

impl Expr {
    pub fn new(space: Dims, function: ScalarFn, sources: Vec<ExprSource>) -> Expr {
        debug_assert_eq!(function.inputs.len(), sources.len());
        Expr { space, function, sources, parts: Vec::new() }
    }

    /// Says that it computes `node` too.
    pub fn add_part(&mut self, node: Id) {
        if !self.parts.contains(&node) {
            self.parts.push(node);
        }
    }

    pub fn source(dtype: DType, space: Dims, source: ExprSource) -> Expr {
        Expr::new(space, identity_fn(lane(dtype)), vec![source])
    }

    /// What lies in memory under `id`.
    pub fn load(id: Id, dtype: DType, space: Dims) -> Expr {
        let layout = Layout::contiguous(&space);
        Expr::source(dtype, space, ExprSource::Node { id, layout })
    }

    /// Whether it reduces along rows, so that its last axis can be neither cut nor moved.
    pub fn is_row(&self) -> bool {
        is_row(&self.function)
    }

    pub fn output(&self) -> Type {
        self.function.values[self.function.outputs[0].0 as usize].1
    }

    /// The memory it is a view of, if it computes nothing.
    pub fn plain(&self) -> Option<(Id, &Layout)> {
        match (&self.sources[..], &self.function.values[..]) {
            ([ExprSource::Node { id, layout }], [(ScalarOp::Input(0), _)]) => Some((*id, layout)),
            _ => None,
        }
    }

    fn moved(&self, space: Dims, f: impl Fn(&Layout) -> Option<Layout>) -> Option<Expr> {
        let sources = self.sources.iter().map(|s| s.map(&f)).collect::<Option<Vec<_>>>()?;
        Some(Expr { space, function: self.function.clone(), sources, parts: self.parts.clone() })
    }

    pub fn permute(&self, axes: &[usize]) -> Option<Expr> {
        self.moved(super::layout::permuted(&self.space, axes), |l| Some(l.permute(axes)))
    }

    pub fn expand(&self, to: &[usize]) -> Option<Expr> {
        self.moved(Dims::from_slice(to), |l| Some(l.expand(&self.space, to)))
    }

    pub fn slice(&self, cuts: &[Cut], to: &[usize]) -> Option<Expr> {
        self.moved(Dims::from_slice(to), |l| Some(l.slice(cuts)))
    }

    pub fn flip(&self, axes: &[usize]) -> Expr {
        self.moved(self.space.clone(), |l| Some(l.flip(axes, &self.space))).unwrap_or_else(|| self.clone())
    }

    pub fn reshape(&self, to: &[usize]) -> Option<Expr> {
        self.moved(Dims::from_slice(to), |l| l.reshape(&self.space, to))
    }

    /// Every parameter one per row: for a scalar parameter of a row kernel. The sources repeat along the last axis.
    pub fn per_row(&self) -> Expr {
        Expr { function: retype(&self.function, |_| Extent::Row), ..self.clone() }
    }

    /// The same with a result of extent `Lane`: a constant is repeated.
    pub fn per_element(self) -> Expr {
        if self.output().extent == Extent::Lane {
            return self;
        }
        let outputs = self.function.outputs.clone();
        let mut builder = Builder::extend(self.function);
        let repeated: Vec<V> = outputs.into_iter().map(|v| builder.repeat(v)).collect();
        Expr { function: builder.finish(&repeated), ..self }
    }

    /// `function` of expressions over one space.
    pub fn compose(space: Dims, function: &ScalarFn, arguments: &[Expr]) -> Expr {
        let mut parts = Composer::default();
        let values: Vec<V> = arguments.iter().map(|e| parts.add(e)).collect();
        let out = parts.builder.inline(function, &values);
        parts.finish(space, &out)
    }
}

/// Builds one function of several expressions, sharing equal sources.
#[derive(Default)]
pub(crate) struct Composer {
    pub builder: Builder,
    sources: Vec<(ExprSource, Type)>,
    parameters: Vec<V>,
    parts: Vec<Id>,
}

impl Composer {
    /// Adds an expression of one output; returns its value.
    pub fn add(&mut self, expr: &Expr) -> V {
        self.add_all(expr)[0]
    }

    /// Adds an expression; returns its values.
    pub fn add_all(&mut self, expr: &Expr) -> Vec<V> {
        self.add_with(expr, |_| None)
    }

    /// The same, with values that are there already in the place of some sources.
    pub fn add_with(&mut self, expr: &Expr, given: impl Fn(&ExprSource) -> Option<V>) -> Vec<V> {
        let new: Vec<Id> = expr.parts.iter().copied().filter(|part| !self.parts.contains(part)).collect();
        self.parts.extend(new);
        let arguments: Vec<V> = expr
            .sources
            .iter()
            .zip(&expr.function.inputs)
            .map(|(source, &ty)| {
                if let Some(value) = given(source) {
                    return value;
                }
                let found = self.sources.iter().position(|(s, t)| s == source && *t == ty);
                let at = found.unwrap_or_else(|| {
                    self.sources.push((source.clone(), ty));
                    self.parameters.push(self.builder.input(ty));
                    self.sources.len() - 1
                });
                self.parameters[at]
            })
            .collect();
        self.builder.inline(&expr.function, &arguments)
    }

    /// The simplified function of `outputs`, with the sources it really uses.
    pub fn finish(self, space: Dims, outputs: &[V]) -> Expr {
        let function = self.builder.finish(outputs);
        let length = space.last().copied().unwrap_or(1);
        let function = crate::ops::kernel::with_length(&function, length).simplify();
        let (function, kept) = crate::ops::kernel::prune(&function);
        let sources = kept.into_iter().map(|i| self.sources[i].0.clone()).collect();
        Expr { parts: self.parts, ..Expr::new(space, function, sources) }
    }
}
