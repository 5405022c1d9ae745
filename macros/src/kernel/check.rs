//! Judges a kernel's signature: which parameters and results it may have.
//! Owns the reading of types; the body is judged where it is lowered.

use syn::spanned::Spanned as _;
use syn::{FnArg, ItemFn, Pat, ReturnType, Type};

use super::model::{Param, Shape, Signature, Ty};
use crate::errors::Errors;

const SCALARS: &str = "`f32` (or `f64`), `bool`, `u8`, `i32`, `u32` or `i64`";

/// Reads types, remembering how the source spells the hole.
pub struct TypeReader<'a> {
    /// Where mistakes go.
    pub errors: &'a Errors,
    /// `"f32"` or `"f64"`, once one was seen.
    pub float: Option<&'static str>,
}

impl TypeReader<'_> {
    /// The type as a kernel knows it; `None` for `_` and after an error.
    pub fn read(&mut self, ty: &Type) -> Option<Shape> {
        match ty {
            Type::Paren(inner) => self.read(&inner.elem),
            Type::Group(inner) => self.read(&inner.elem),
            Type::Tuple(tuple) if !tuple.elems.is_empty() => {
                let elements: Vec<_> = tuple.elems.iter().map(|t| self.read(t)).collect();
                elements.into_iter().collect::<Option<_>>().map(Shape::Tuple)
            }
            Type::Infer(_) => None,
            Type::Path(path) if path.qself.is_none() => self.read_path(ty, &path.path),
            Type::Reference(_) => self.unsupported(ty, "a kernel takes values, not references: remove the `&`"),
            Type::Slice(_) | Type::Array(_) => self.unsupported(
                ty,
                "a kernel sees one element, or with `Row` one row: write the parameter as `f32` or `Row`",
            ),
            _ => self.unsupported(ty, format!("unsupported type in a kernel: use {SCALARS}, or `Row`")),
        }
    }

    fn read_path(&mut self, ty: &Type, path: &syn::Path) -> Option<Shape> {
        let name = path.segments.last()?.ident.to_string();
        if name == "Row" {
            return Some(Shape::Row);
        }
        let fixed = match name.as_str() {
            "f32" => return self.float(ty, "f32"),
            "f64" => return self.float(ty, "f64"),
            "bool" => "Bool",
            "u8" => "U8",
            "i32" => "I32",
            "u32" => "U32",
            "i64" => "I64",
            "usize" | "isize" | "u64" => {
                return self.unsupported(ty, format!("no dtype is called `{name}`: use `i64`"));
            }
            "i8" | "i16" | "u16" => return self.unsupported(ty, format!("no dtype is called `{name}`: use `i32`")),
            "Tensor" => {
                return self.unsupported(
                    ty,
                    "a kernel is a function of one element or row: write `f32` or `Row`, and call `map` with tensors",
                );
            }
            _ => {
                return self.unsupported(
                    ty,
                    format!("`{name}` is no type of a kernel: use {SCALARS}, or `Row` for a whole row"),
                );
            }
        };
        Some(Shape::Scalar(Ty::Fixed(fixed)))
    }

    fn float(&mut self, ty: &Type, name: &'static str) -> Option<Shape> {
        let first = *self.float.get_or_insert(name);
        if first != name {
            return self.unsupported(
                ty,
                format!("a kernel has one float type, which stands for every float dtype: `{first}` was used before, so write `{first}`"),
            );
        }
        Some(Shape::Scalar(Ty::Kernel))
    }

    fn unsupported(&self, ty: &Type, message: impl std::fmt::Display) -> Option<Shape> {
        self.errors.at(ty, message);
        None
    }
}

/// The signature; parameters and results whose types are mistaken are reported and read as floats.
pub fn signature(item: &ItemFn, errors: &Errors) -> Signature {
    let sig = &item.sig;
    if let Some(token) = &sig.asyncness {
        errors.at(token, "a kernel is a plain function: remove `async`");
    }
    if !matches!(sig.safety, syn::Safety::Default) {
        errors.at(&sig.safety, "a kernel is a plain function: remove this qualifier");
    }
    if let Some(abi) = &sig.abi {
        errors.at(abi, "a kernel is a plain function: remove the ABI");
    }
    if !sig.generics.params.is_empty() {
        errors.at(
            &sig.generics,
            "a kernel has no generics: `f32` already stands for every float dtype, so write the function for `f32`",
        );
    } else if let Some(clause) = &sig.generics.where_clause {
        errors.at(clause, "a kernel has no generics: remove the `where` clause");
    }
    if let Some(variadic) = &sig.variadic {
        errors.at(variadic, "a kernel has a fixed number of parameters");
    }

    let mut types = TypeReader { errors, float: None };
    let params: Vec<Param> = sig.inputs.iter().filter_map(|input| param(input, &mut types)).collect();
    if sig.inputs.is_empty() {
        errors.at_span(sig.paren_token.span.join(), "a kernel needs at least one parameter, such as `x: f32`");
    }
    let row = params.iter().any(|p| p.shape == Shape::Row);
    let returns = match &sig.output {
        ReturnType::Default => {
            let ty = if row { "Row" } else { types.float.unwrap_or("f32") };
            errors.at(&sig.ident, format!("a kernel returns its result: add `-> {ty}` after the parameters"));
            vec![Shape::Scalar(Ty::Kernel)]
        }
        ReturnType::Type(_, ty) => returns(ty, row, &mut types),
    };
    if row && types.float == Some("f64") {
        errors.at(&sig.ident, "the scalars of a row kernel are `f32`, which stands for every float dtype");
    }
    if row && let Some(token) = &sig.constness {
        errors.at(token, "a row kernel is never evaluated in a constant: remove `const`");
    }
    Signature { row, float: types.float.or(row.then_some("f32")), params, returns }
}

fn param(input: &FnArg, types: &mut TypeReader) -> Option<Param> {
    let typed = match input {
        FnArg::Receiver(receiver) => {
            types.errors.at(receiver, "a kernel is a free function: give the value a name, such as `x: f32`");
            return None;
        }
        FnArg::Typed(typed) => typed,
    };
    let name = match &*typed.pat {
        Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => pat.ident.clone(),
        Pat::Wild(_) => {
            types.errors.at(&typed.pat, "name the parameter; one that is not used may start with `_`");
            return None;
        }
        other => {
            types.errors.at(other, "a kernel's parameters are plain names: take its parts as parameters of their own");
            return None;
        }
    };
    let shape = match types.read(&typed.ty) {
        Some(Shape::Tuple(_)) => {
            types.errors.at(&typed.ty, "a kernel has no tuple parameters: give each part its own parameter");
            Shape::Scalar(Ty::Kernel)
        }
        Some(shape) => shape,
        None => {
            if let Type::Infer(_) = &*typed.ty {
                types.errors.at(&typed.ty, format!("a parameter needs its type: {SCALARS}, or `Row`"));
            }
            Shape::Scalar(Ty::Kernel)
        }
    };
    Some(Param { name, shape })
}

fn returns(ty: &Type, row: bool, types: &mut TypeReader) -> Vec<Shape> {
    if let Type::Tuple(unit) = ty
        && unit.elems.is_empty()
    {
        types.errors.at(ty, "a kernel returns its result: write `-> f32`, or a tuple for several");
        return vec![];
    }
    let shapes = match types.read(ty) {
        Some(Shape::Tuple(shapes)) => shapes,
        Some(shape) => vec![shape],
        None => vec![Shape::Scalar(Ty::Kernel)],
    };
    for shape in &shapes {
        match shape {
            Shape::Tuple(_) => types.errors.at(ty, "several results stand in one tuple: no tuple inside a tuple"),
            Shape::Row if !row => {
                types.errors.at_span(ty.span(), "only a kernel with a `Row` parameter returns a `Row`");
            }
            _ => {}
        }
    }
    shapes
}
