//! What a module is once its syntax has been read: plain structs with spans.
//! Owns the shapes only.

use syn::{Expr, ExprClosure, Generics, Ident, Member, Type};

/// What the derive does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Visited: a module, a parameter, or a collection of them.
    Module,
    /// Visited, and its type is `Buffer`.
    Buffer,
    /// Left alone.
    Skipped,
}

/// How a call of the field runs, by its type as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Its `forward`.
    One,
    /// `Vec<M>` or `[M; N]`: one after the other.
    Each,
    /// `Option<M>`: the identity when `None`.
    Maybe,
    /// `Vec<Option<M>>`, `[Option<M>; N]`.
    EachMaybe,
    /// `Option<Vec<M>>`.
    MaybeEach,
    /// Deeper than that, a parameter or a buffer: has no call.
    None,
}

/// One field.
pub struct Field {
    /// As in `self.member`.
    pub member: Member,
    /// In paths: the member, or what `rename` says.
    pub name: String,
    /// As written.
    pub ty: Type,
    /// What is inside `Vec`, `Option`, `Box` and arrays.
    pub element: Type,
    /// What is done with it.
    pub role: Role,
    /// How it is called.
    pub form: Form,
    /// Whether it is skipped and called as the function it holds.
    pub function: bool,
    /// `recompute`, if each of its calls is a recompute region.
    pub recompute: Option<Ident>,
}

/// One input of the forward closure.
pub struct Input {
    /// `None` for `_`.
    pub name: Option<Ident>,
    /// `mut`
    pub mutable: Option<syn::token::Mut>,
    /// `None` if untyped, which means `&Tensor`.
    pub ty: Option<Type>,
    /// What the type is to the borrowing rule.
    pub kind: Kind,
}

/// What a name or an expression is to the borrowing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `Tensor`.
    Owned,
    /// A `&Tensor`.
    Borrowed,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether this is a tensor, owned or borrowed.
    pub fn is_tensor(self) -> bool {
        self != Kind::Other
    }
}

/// `forward = |…| …`
pub struct Forward {
    /// In order.
    pub inputs: Vec<Input>,
    /// As written; `None` means `Tensor`.
    pub output: Option<Type>,
    /// With field calls and borrows written out; `None` after an error.
    pub body: Option<Expr>,
    /// The indices of the fields it calls.
    pub called: Vec<usize>,
    /// Whether the user wrote a call of `.forward`.
    pub calls_forward: bool,
}

impl Forward {
    /// Whether it fits `trait Forward`: one tensor to one tensor.
    pub fn is_trait(&self) -> bool {
        matches!(&self.inputs[..], [input] if input.kind == Kind::Borrowed) && self.returns_tensor()
    }

    /// Whether every input and the output is a tensor, so that it has a vjp.
    pub fn is_of_tensors(&self) -> bool {
        self.inputs.iter().all(|input| input.kind == Kind::Borrowed) && self.returns_tensor()
    }

    fn returns_tensor(&self) -> bool {
        self.output.as_ref().is_none_or(|ty| super::check::tensor_kind(ty) == Kind::Owned)
    }
}

/// The struct under the derive.
pub struct Module {
    /// Its name.
    pub ident: Ident,
    /// As written.
    pub generics: Generics,
    /// In order.
    pub fields: Vec<Field>,
    /// If given.
    pub forward: Option<Forward>,
    /// Whether its forward is a recompute region.
    pub recompute: bool,
}

/// The options of one `#[module(…)]`, as written.
#[derive(Default)]
pub struct Options {
    /// `forward = |x| …`
    pub forward: Option<ExprClosure>,
    /// `skip`
    pub skip: Option<Ident>,
    /// `buffer`
    pub buffer: Option<Ident>,
    /// `rename = "…"`
    pub rename: Option<syn::LitStr>,
    /// `recompute`
    pub recompute: Option<Ident>,
}
