//! What can go wrong, and how it is said: the problem, the operation, the call site and the module path.
//! Owns the messages of the whole crate.

use std::borrow::Cow;
use std::fmt;

use tapeflow_ir::DType;

use crate::program::kernel::RunError;
use crate::tape::site::Site;
use crate::tensor::shape::Shape;

/// A result with tapeflow's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A mistake of the caller or a failure of a run: what was wrong, in which operation, recorded where.
#[derive(Clone)]
pub struct Error(Box<Details>);

#[derive(Clone)]
struct Details {
    op: Cow<'static, str>,
    problem: Problem,
    site: Site,
}

/// What was wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Shapes that do not broadcast.
    #[error("the shapes {} do not broadcast: aligned at the last axis, extents must be equal or 1", list(.shapes))]
    Broadcast {
        /// As given.
        shapes: Vec<Shape>,
    },
    /// Shapes that do not fit together in an operation with a rule of its own.
    #[error("the shapes {} do not fit: {rule}", list(.shapes))]
    Shapes {
        /// As given.
        shapes: Vec<Shape>,
        /// What would be right.
        rule: Cow<'static, str>,
    },
    /// A reshape to another number of elements.
    #[error("{from} has {} elements and cannot become {to}", .from.numel())]
    Reshape {
        /// The shape there is.
        from: Shape,
        /// The shape asked for, as written.
        to: String,
    },
    /// An axis that is not there.
    #[error("axis {axis} is out of range for the shape {shape}, which has {} axes", .shape.len())]
    Axis {
        /// As written.
        axis: isize,
        /// Of the tensor.
        shape: Shape,
    },
    /// A range that leaves its axis.
    #[error("the range {range} does not lie in axis {axis} of {shape}, which has {} elements", .shape[*axis])]
    Range {
        /// As written.
        range: String,
        /// Which axis.
        axis: usize,
        /// Of the tensor.
        shape: Shape,
    },
    /// Another number of axes than asked for.
    #[error("the shape {shape} has {} axes, not {wanted}", .shape.len())]
    Rank {
        /// Of the tensor.
        shape: Shape,
        /// How many were asked for.
        wanted: usize,
    },
    /// A dtype the operation is not defined for.
    #[error("{found} is not supported: it takes {wanted}; `cast` converts")]
    DType {
        /// As given.
        found: DType,
        /// What would be right.
        wanted: Cow<'static, str>,
    },
    /// Operands of several dtypes.
    #[error("operands of dtype {left} and {right} do not mix: `cast` one of them")]
    DTypes {
        /// Of the first.
        left: DType,
        /// Of the other.
        right: DType,
    },
    /// Data whose length is not the shape's.
    #[error("{found} elements were given for the shape {shape}, which has {}", .shape.numel())]
    Length {
        /// How many were given.
        found: usize,
        /// The shape asked for.
        shape: Shape,
    },
    /// An argument outside what the operation takes.
    #[error("{0}")]
    Argument(Cow<'static, str>),
    /// Operands on two devices.
    #[error("operands are on the devices {left} and {right}: move one of them with `to`")]
    Devices {
        /// Of the first.
        left: String,
        /// Of the other.
        right: String,
    },
    /// A device that cannot be opened, or that no longer answers.
    #[error("{device}: {reason}")]
    Device {
        /// Its name.
        device: String,
        /// Why, and what would help.
        reason: String,
    },
    /// A kernel that the device cannot run.
    #[error("{device} cannot run this: {reason}; move the operands to another device with `to`")]
    Unsupported {
        /// Its name.
        device: String,
        /// What it lacks.
        reason: String,
    },
    /// `item` or `backward` of a tensor with several elements.
    #[error("the shape is {shape}, and a single element is needed{hint}")]
    NotAScalar {
        /// Of the tensor.
        shape: Shape,
        /// What would be right.
        hint: &'static str,
    },
    /// `backward` of what depends on nothing that has a gradient.
    #[error(
        "no parameter is reached: nothing this depends on has requires_grad (recorded under no_grad, detached, or frozen?)"
    )]
    NothingToDifferentiate,
    /// A cotangent would have to pass through a conversion without a derivative.
    #[error("{found} carries no cotangent, so the gradient would be cut here; `detach` the operand to say so")]
    Severed {
        /// The dtype that carries none.
        found: DType,
    },
    /// `backward` through a value whose graph is gone.
    #[error(
        "the graph of this value was released when it was realised by a step: record it again, or take the gradient before"
    )]
    Released,
    /// `grad` with respect to something the result does not depend on.
    #[error("the result does not depend on input {index} of `grad`, of shape {shape}")]
    Independent {
        /// Which input.
        index: usize,
        /// Its shape.
        shape: Shape,
    },
    /// An assignment of another shape or dtype.
    #[error("a value of {found_dtype} {found} cannot replace one of {wanted_dtype} {wanted}")]
    Replace {
        /// Of the new value.
        found: Shape,
        /// Of the new value.
        found_dtype: DType,
        /// Of the old value.
        wanted: Shape,
        /// Of the old value.
        wanted_dtype: DType,
    },
    /// A failure while a program ran.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The first NaN, where they are looked for.
    #[error("{place} holds NaN in {count} of {elements} elements, first at {first:?}{hint}")]
    NotANumber {
        /// In what.
        place: &'static str,
        /// How many are NaN.
        count: usize,
        /// Of how many.
        elements: usize,
        /// The index of the first.
        first: Vec<usize>,
        /// What the operands say of the cause.
        hint: &'static str,
    },
    /// A limit of the machine or of the options.
    #[error("{needed} bytes are needed for {purpose}: {reason}")]
    Memory {
        /// How many bytes.
        needed: usize,
        /// What for.
        purpose: &'static str,
        /// Why there are none.
        reason: String,
    },
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
}

fn list(shapes: &[Shape]) -> String {
    let mut out = String::new();
    for (i, s) in shapes.iter().enumerate() {
        let sep = if i == 0 {
            ""
        } else if i + 1 == shapes.len() {
            " and "
        } else {
            ", "
        };
        out += &format!("{sep}{s}");
    }
    out
}

impl Error {
    pub(crate) fn new(op: impl Into<Cow<'static, str>>, problem: Problem, site: Site) -> Error {
        Error(Box::new(Details { op: op.into(), problem, site }))
    }

    pub(crate) fn site(&self) -> Site {
        self.0.site
    }

    /// What was wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The operation it happened in.
    pub fn op(&self) -> &str {
        &self.0.op
    }

    /// Source file, line and column of the call.
    pub fn location(&self) -> &'static std::panic::Location<'static> {
        self.0.site.location
    }

    /// The path of the module it was recorded in, `h.3.mlp.fc`; empty outside modules.
    pub fn module_path(&self) -> String {
        self.0.site.path.to_string()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { op, problem, site } = &*self.0;
        write!(f, "{op}: {problem}\n  at {site}")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.problem)
    }
}
