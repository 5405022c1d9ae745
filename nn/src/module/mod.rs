//! Models as trees of modules: what a module is, how it is walked, and what can be asked of every one.
//!
//! A module is a plain struct whose fields are parameters, buffers and other modules. It is walked by a [`Visitor`];
//! the paths (`h.3.mlp.c_fc.weight`) come from the walk and are the names everything else uses. Knows no particular
//! layer.

mod buffer;
mod containers;
mod ext;
mod forward;
mod pattern;
mod summary;
#[cfg(test)]
mod tests;

pub use buffer::Buffer;
pub use ext::{Leaf, ModuleExt, Place};
pub(crate) use forward::isolate;
pub use forward::{Forward, Layer, Vjp};
pub use pattern::Pattern;
pub use summary::{Summary, SummaryRow};

use tapeflow_core::Parameter;

/// Something that holds parameters and buffers, directly or in submodules.
///
/// `#[derive(Module)]` writes this; by hand it is one `enter`, `visit`, `leave` per field, in the order of the fields.
///
/// ```
/// use tapeflow_nn::{Module, Parameter, Visitor};
/// struct Scale { factor: Parameter }
/// impl Module for Scale {
///     fn visit(&self, visitor: &mut dyn Visitor) {
///         visitor.enter("factor");
///         self.factor.visit(visitor);
///         visitor.leave();
///     }
/// }
/// ```
pub trait Module {
    /// Shows the visitor every parameter and buffer, each inside the names that lead to it.
    fn visit(&self, visitor: &mut dyn Visitor);
}

/// Something that walks a module.
pub trait Visitor {
    /// A parameter, at the path of the names entered and not left.
    fn parameter(&mut self, parameter: &Parameter);

    /// A buffer, at the path of the names entered and not left.
    fn buffer(&mut self, buffer: &Buffer);

    /// What follows belongs to the field or element `name`.
    fn enter(&mut self, name: &str);

    /// The field or element entered last is done.
    fn leave(&mut self);
}

impl Module for Parameter {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.parameter(self);
    }
}

impl Module for Buffer {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.buffer(self);
    }
}
