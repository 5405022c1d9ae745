//! What a kernel is once its syntax has been read: plain structs with spans.
//! Owns the shapes only; `check` judges them, `lower` fills the rows, `expand` writes them.

use proc_macro2::{Ident, TokenStream};
use syn::{ItemConst, ItemFn};

/// The number of a row.
pub type RowId = usize;

/// The dtype of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    /// The hole: `f32` or `f64`, whichever the source spells.
    Kernel,
    /// A dtype that stays as written, by its name in `ir::DType`.
    Fixed(&'static str),
}

/// The type of a parameter, a result or a `let`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One scalar.
    Scalar(Ty),
    /// One value for each element of the row.
    Row,
    /// Several.
    Tuple(Vec<Shape>),
}

/// One parameter.
pub struct Param {
    /// As in the source.
    pub name: Ident,
    /// `Scalar` or `Row`.
    pub shape: Shape,
}

/// A function's signature as a kernel.
pub struct Signature {
    /// Whether it is a row kernel.
    pub row: bool,
    /// How the source spells the hole, if it does.
    pub float: Option<&'static str>,
    /// In order.
    pub params: Vec<Param>,
    /// What it returns: one element unless the return type is a tuple.
    pub returns: Vec<Shape>,
}

/// One row of the template; names are those of the variants in `ir`.
#[derive(Clone, Debug)]
pub enum Row {
    /// A parameter.
    Input(usize),
    /// A float literal.
    Float(f64),
    /// An integer literal: its dtype is the row's.
    Int(i64),
    /// A bool literal.
    Bool(bool),
    /// A named constant: float, integer or bool by the row's dtype.
    Constant(TokenStream),
    /// One operand.
    Unary(&'static str, RowId),
    /// Two operands.
    Binary(&'static str, RowId, RowId),
    /// Two operands, giving a bool.
    Compare(&'static str, RowId, RowId),
    /// `if a { b } else { c }`
    Select(RowId, RowId, RowId),
    /// `a · b + c`, rounded once.
    MulAdd(RowId, RowId, RowId),
    /// To the row's dtype.
    Cast(RowId),
    /// Along the row.
    Reduce(&'static str, RowId),
    /// The number of elements of the row.
    Length,
    /// The operand, with no derivative.
    Detach(RowId),
    /// One output of another kernel.
    Call {
        /// The path of its function.
        kernel: syn::Path,
        /// Which output.
        output: u16,
        /// Its arguments.
        args: Vec<RowId>,
    },
}

impl Row {
    /// The rows this one reads.
    pub fn operands_mut(&mut self) -> Vec<&mut RowId> {
        match self {
            Row::Input(_) | Row::Float(_) | Row::Int(_) | Row::Bool(_) | Row::Constant(_) | Row::Length => vec![],
            Row::Unary(_, a) | Row::Cast(a) | Row::Reduce(_, a) | Row::Detach(a) => vec![a],
            Row::Binary(_, a, b) | Row::Compare(_, a, b) => vec![a, b],
            Row::Select(a, b, c) | Row::MulAdd(a, b, c) => vec![a, b, c],
            Row::Call { args, .. } => args.iter_mut().collect(),
        }
    }
}

/// The rows of a kernel, each with its dtype, and which of them it returns.
pub struct Body {
    /// In order of evaluation; the parameters come first.
    pub rows: Vec<(Row, Ty)>,
    /// What it returns.
    pub outputs: Vec<RowId>,
    /// Constants declared inside the function, which the template needs too.
    pub constants: Vec<ItemConst>,
}

/// A kernel.
pub struct Kernel {
    /// The user's function, as written.
    pub item: ItemFn,
    /// Its signature.
    pub signature: Signature,
    /// Its body; `None` after an error.
    pub body: Option<Body>,
}
