//! The scalar IR of tapeflow: dtypes, kernel templates, typed SSA functions, the derivative table, the simplifier, the
//! reference evaluator and the printer. It has no dependencies and knows no tensors, devices or tape.

mod arithmetic;
mod builder;
mod derivative;
mod dtype;
mod eval;
pub mod half;
mod instantiate;
pub mod math;
mod op;
mod print;
pub mod reduce;
mod scalar_fn;
mod simplify;
mod template;
mod typing;
mod verify;
mod vjp;

pub use builder::Builder;
pub use dtype::DType;
pub use eval::{Column, Precision};
pub use instantiate::{InstantiateCause, InstantiateError};
pub use op::{Binary, Compare, Reduce, Unary};
pub use scalar_fn::{Const, Op, ScalarFn, Type, V};
pub use template::{Extent, Hole, RowId, Template, TemplateInput, TemplateRow};
pub use typing::TypeError;
pub use verify::VerifyError;
pub use vjp::Vjps;
