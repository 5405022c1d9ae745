//! A model as a table: paths, shapes, counts, bytes.

use std::fmt;

use super::{Module, ModuleExt};

/// The parameters and buffers of a module; `Display` is a table with totals.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// One row per tensor, in visiting order.
    pub rows: Vec<SummaryRow>,
}

/// One parameter or buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryRow {
    /// Its path.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype, as it is printed.
    pub dtype: String,
    /// The number of its elements.
    pub count: usize,
    /// The bytes of its elements.
    pub bytes: usize,
    /// Whether it is learned, frozen, or a buffer.
    pub role: Role,
}

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A parameter that is learned.
    Learned,
    /// A parameter that is frozen.
    Frozen,
    /// A buffer.
    Buffer,
}

impl Summary {
    pub(super) fn of<M: Module + ?Sized>(module: &M) -> Self {
        let rows = module
            .leaves()
            .into_iter()
            .map(|(path, leaf)| {
                let tensor = leaf.tensor();
                let count = tensor.numel();
                SummaryRow {
                    path,
                    shape: tensor.shape().to_vec(),
                    dtype: tensor.dtype().to_string(),
                    count,
                    bytes: count * tensor.dtype().size(),
                    role: leaf.role(),
                }
            })
            .collect();
        Summary { rows }
    }

    /// The number of elements of all parameters.
    pub fn num_parameters(&self) -> usize {
        self.rows.iter().filter(|r| r.role != Role::Buffer).map(|r| r.count).sum()
    }

    /// The number of elements of the parameters that are learned.
    pub fn num_learned(&self) -> usize {
        self.rows.iter().filter(|r| r.role == Role::Learned).map(|r| r.count).sum()
    }

    /// The bytes of all parameters and buffers.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|r| r.bytes).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self.rows.iter().map(|r| format!("{:?}", r.shape)).collect();
        let path_width = self.rows.iter().map(|r| r.path.chars().count()).chain([5]).max().unwrap_or(5);
        let shape_width = shapes.iter().map(String::len).chain([5]).max().unwrap_or(5);
        writeln!(f, "{:path_width$}  {:shape_width$}  dtype  {:>12}  {:>12}", "path", "shape", "count", "bytes")?;
        for (row, shape) in self.rows.iter().zip(&shapes) {
            let note = match row.role {
                Role::Learned => "",
                Role::Frozen => "  frozen",
                Role::Buffer => "  buffer",
            };
            writeln!(
                f,
                "{:path_width$}  {shape:shape_width$}  {:5}  {:>12}  {:>12}{note}",
                row.path, row.dtype, row.count, row.bytes
            )?;
        }
        let (all, learned) = (self.num_parameters(), self.num_learned());
        write!(f, "{all} parameters, {learned} of them learned, {} bytes", self.bytes())
    }
}
