//! Kernel templates: what `#[kernel]` writes as a `static`, rows with a hole for the dtype.
//! Owns the form only; `instantiate.rs` fills the hole and inlines calls.

use crate::{Binary, Compare, DType, Reduce, Unary};

/// The number of a row in a template; rows refer to earlier rows only.
pub type RowId = u16;

/// The type of a template's value before the hole is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hole {
    /// The dtype the template is instantiated for (spelled `f32` or `f64` in the source).
    Kernel,
    /// A dtype that stays as written.
    Fixed(DType),
}

/// How often a value occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extent {
    /// One per row: results of reductions, scalar inputs of row kernels.
    Row,
    /// One per element.
    Lane,
}

/// One parameter of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TemplateInput {
    /// As in the source.
    pub name: &'static str,
    /// Its dtype or hole.
    pub ty: Hole,
    /// Of a scalar kernel always `Lane`; in a row kernel `Lane` for `Row` parameters and `Row` for scalars.
    pub extent: Extent,
}

/// One row: an instruction and its operands; its result's type follows from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TemplateRow {
    /// The parameter of that index.
    Input(u16),
    /// A float constant, rounded once to the kernel's dtype.
    Float(f64),
    /// An integer constant of a fixed dtype.
    Int(i64, DType),
    /// A bool constant.
    Bool(bool),
    /// One operand.
    Unary(Unary, RowId),
    /// Two operands of one dtype.
    Binary(Binary, RowId, RowId),
    /// Two operands of one dtype, giving a bool.
    Compare(Compare, RowId, RowId),
    /// `if a { b } else { c }`, both computed.
    Select(RowId, RowId, RowId),
    /// `a · b + c`, rounded once.
    MulAdd(RowId, RowId, RowId),
    /// `as`: float to int saturates with NaN to 0, as in Rust; to bool is `!= 0`.
    Cast(RowId, Hole),
    /// Along the last axis; the result has extent `Row`.
    Reduce(Reduce, RowId),
    /// The number of elements of the row, in the kernel's dtype.
    Length,
    /// The same value with no derivative.
    Detach(RowId),
    /// Output `output` of another template.
    Call {
        /// Which one.
        template: &'static Template,
        /// Which of its outputs.
        output: u16,
        /// One row per parameter.
        args: &'static [RowId],
    },
}

/// A function of scalars or rows with a hole for its dtype.
#[derive(Debug, PartialEq)]
pub struct Template {
    /// The function's name in the source.
    pub name: &'static str,
    /// Whether it is a row kernel: only those reduce.
    pub row: bool,
    /// Its parameters.
    pub inputs: &'static [TemplateInput],
    /// Its rows, in order of evaluation.
    pub rows: &'static [TemplateRow],
    /// The rows it returns.
    pub outputs: &'static [RowId],
}
