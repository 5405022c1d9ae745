//! Judges a struct as a module: its fields, their attributes and types, and the forward closure's head.
//! Owns what types mean as they are written; the closure's body is judged where it is rewritten.

use std::collections::BTreeMap;

use quote::ToTokens;
use syn::{Data, DeriveInput, ExprClosure, GenericArgument, Generics, Member, Pat, PathArguments, ReturnType, Type};

use super::call::is_function;
use super::model::{Field, Form, Forward, Input, Kind, Module, Options, Role};
use super::parse::{Place, options};
use crate::errors::Errors;

/// The module, its forward's body not yet rewritten, and the closure it is to be made of.
pub fn module(input: &DeriveInput, errors: &Errors) -> (Module, Option<ExprClosure>) {
    let Options { forward: closure, recompute, .. } = options(&input.attrs, Place::Struct, errors);
    let fields = match &input.data {
        Data::Struct(data) => {
            data.fields.iter().zip(data.fields.members()).map(|(f, m)| field(f, m, &input.generics, errors)).collect()
        }
        Data::Enum(data) => {
            errors.at(
                &data.enum_token,
                "a module is a struct: its parameters must not depend on its value. Put the enum in a field with \
                 `#[module(skip)]`, or write `impl Module` by hand",
            );
            vec![]
        }
        Data::Union(data) => {
            errors.at(&data.union_token, "a module is a struct");
            vec![]
        }
    };
    check_names(&fields, errors);
    if closure.is_none() {
        for option in fields.iter().filter_map(|f| f.recompute.as_ref()).chain(&recompute) {
            errors.at(
                option,
                "`recompute` is about the calls of `forward = |x| …`, which is not here: in a `forward` written by hand, \
                 call `tapeflow::recompute(|| …)`",
            );
        }
    }
    let forward = closure.as_ref().map(|closure| forward(closure, errors));
    let module = Module {
        ident: input.ident.clone(),
        generics: input.generics.clone(),
        fields,
        forward,
        recompute: recompute.is_some(),
    };
    (module, closure)
}

fn field(field: &syn::Field, member: Member, generics: &Generics, errors: &Errors) -> Field {
    let options = options(&field.attrs, Place::Field, errors);
    let role = role(&options, errors);
    if role == Role::Module {
        check_type(&field.ty, &field.ty, errors);
    }
    let name = match (&options.rename, &member) {
        (Some(name), _) => {
            check_name(name, errors);
            name.value()
        }
        (None, Member::Named(ident)) => syn::ext::IdentExt::unraw(ident).to_string(),
        (None, Member::Unnamed(index)) => index.index.to_string(),
    };
    let (form, element) = form(&field.ty);
    let called = role == Role::Skipped || (role == Role::Module && leaf_name(element).is_none());
    let form = if called { form } else { Form::None };
    let function = is_function(role, &field.ty, generics);
    let recompute = options.recompute.filter(|option| {
        let has_forward = called && role != Role::Skipped;
        if !has_forward {
            errors.at(
                option,
                "`recompute` is about a module's forward: a parameter, a buffer or a skipped field has none",
            );
        }
        has_forward
    });
    Field { member, name, ty: field.ty.clone(), element: element.clone(), role, form, function, recompute }
}

/// Reports fields whose calls are to be computed again and that are never called.
pub fn check_recomputed(forward: &Forward, fields: &[Field], errors: &Errors) {
    let unused = fields.iter().enumerate().filter(|(k, _)| !forward.called.contains(k));
    for (option, field) in unused.filter_map(|(_, f)| Some((f.recompute.as_ref()?, f))) {
        let name = field.member.to_token_stream();
        let message = format!(
            "the forward expression never calls `{name}`, so nothing would be computed again: call it as `{name}(x)`, or \
             wrap what it does in `tapeflow::recompute(|| …)`"
        );
        errors.at(option, message);
    }
}

fn role(options: &Options, errors: &Errors) -> Role {
    match (&options.skip, &options.buffer, &options.rename) {
        (Some(skip), Some(_), _) => {
            errors.at(skip, "a buffer is visited and saved, a skipped field is not: keep one of `skip` and `buffer`");
            Role::Skipped
        }
        (Some(_), None, Some(rename)) => {
            errors.at(rename, "a skipped field has no path, so no name to change: keep one of `skip` and `rename`");
            Role::Skipped
        }
        (Some(_), None, None) => Role::Skipped,
        (None, Some(_), _) => Role::Buffer,
        (None, None, _) => Role::Module,
    }
}

fn check_name(name: &syn::LitStr, errors: &Errors) {
    let value = name.value();
    if value.is_empty() || value.contains(|c: char| c == '.' || c.is_whitespace()) {
        errors.at(name, "a name is one segment of a path such as `h.3.mlp`: not empty, without dots and spaces");
    }
}

fn check_names(fields: &[Field], errors: &Errors) {
    let mut seen = BTreeMap::new();
    for field in fields.iter().filter(|field| field.role != Role::Skipped) {
        if let Some(first) = seen.insert(&field.name, &field.member) {
            let message =
                format!("two fields are called `{}` in paths: `{}` is the other", field.name, first.to_token_stream());
            errors.at(&field.member, message);
        }
    }
}

/// Reports types that hold no parameters, looking through collections; the whole type is what the message names.
fn check_type(ty: &Type, whole: &Type, errors: &Errors) {
    let plain = match ty {
        Type::Paren(inner) => return check_type(&inner.elem, whole, errors),
        Type::Group(inner) => return check_type(&inner.elem, whole, errors),
        Type::Array(array) => return check_type(&array.elem, whole, errors),
        Type::Tuple(tuple) if !tuple.elems.is_empty() => {
            // A tuple of modules is a module; one plain element is enough to say so.
            let is_plain = |elem: &Type| {
                let found = Errors::default();
                check_type(elem, elem, &found);
                !found.is_empty()
            };
            let plain = tuple.elems.iter().filter(|elem| is_plain(elem)).count();
            if plain > 0 && plain < tuple.elems.len() {
                let text = text(whole);
                let message = "its elements are visited as modules, and not all of them are: make them fields of their \
                               own, and mark those without parameters `#[module(skip)]`";
                return errors.at(whole, format!("`{text}`: {message}"));
            }
            plain > 0
        }
        Type::Path(path) => {
            let Some(segment) = path.path.segments.last() else { return };
            let name = segment.ident.to_string();
            if name == "Tensor" {
                let message = "a bare `Tensor` is no parameter: use `Parameter` (trained and saved), `Buffer` (saved), \
                               or mark the field `#[module(skip)]`";
                return errors.at(whole, message);
            }
            if let ("Vec" | "Option" | "Box", Some(element)) = (name.as_str(), argument(segment)) {
                return check_type(element, whole, errors);
            }
            if MAPS.contains(&name.as_str()) {
                let text = text(whole);
                let message = "is no module: use a struct or a `Vec` for what holds parameters, or mark the field \
                               `#[module(skip)]`";
                return errors.at(whole, format!("`{text}` {message}"));
            }
            PLAIN.contains(&name.as_str())
        }
        Type::Reference(_) | Type::FnPtr(_) | Type::Ptr(_) | Type::Slice(_) | Type::Never(_) | Type::Tuple(_) => true,
        _ => false,
    };
    if plain {
        let text = text(whole);
        errors.at(whole, format!("`{text}` holds no parameters: mark the field `#[module(skip)]`"));
    }
}

const PLAIN: &[&str] = &[
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "isize",
    "f32",
    "f64",
    "bool",
    "char",
    "str",
    "String",
    "PathBuf",
    "Duration",
    "Instant",
    "PhantomData",
    "Range",
    "HashMap",
    "HashSet",
    "BTreeMap",
    "BTreeSet",
    "DType",
    "Device",
    "Shape",
    "Generator",
];

const MAPS: &[&str] = &["HashMap", "HashSet", "BTreeMap", "BTreeSet"];

/// A type as one would write it.
fn text(ty: &Type) -> String {
    let mut text = String::new();
    let mut previous = ' ';
    for part in ty.to_token_stream().to_string().split_whitespace() {
        let first = part.chars().next().unwrap_or(' ');
        let wordy = |c: char| c.is_alphanumeric() || c == '_';
        let spaced = previous == ','
            || previous == ';'
            || (wordy(previous) && wordy(first))
            || part == "->"
            || previous == '>' && wordy(first);
        if spaced && !text.is_empty() {
            text.push(' ');
        }
        text.push_str(part);
        previous = part.chars().next_back().unwrap_or(' ');
    }
    text
}

/// How a field of this type is called, and what is inside its collections.
fn form(ty: &Type) -> (Form, &Type) {
    let Some((outer, inner)) = collection(ty) else { return (Form::One, unboxed(ty)) };
    match (outer, collection(inner)) {
        (Form::Each, None) => (Form::Each, unboxed(inner)),
        (Form::Maybe, None) => (Form::Maybe, unboxed(inner)),
        (Form::Each, Some((Form::Maybe, element))) if collection(element).is_none() => {
            (Form::EachMaybe, unboxed(element))
        }
        (Form::Maybe, Some((Form::Each, element))) if collection(element).is_none() => {
            (Form::MaybeEach, unboxed(element))
        }
        (_, Some(_)) => {
            let mut element = inner;
            while let Some((_, next)) = collection(element) {
                element = next;
            }
            (Form::None, unboxed(element))
        }
        _ => (Form::One, ty),
    }
}

fn collection(ty: &Type) -> Option<(Form, &Type)> {
    match ty {
        Type::Paren(inner) => collection(&inner.elem),
        Type::Group(inner) => collection(&inner.elem),
        Type::Array(array) => Some((Form::Each, &array.elem)),
        Type::Path(path) => {
            let segment = path.path.segments.last()?;
            let form = match segment.ident.to_string().as_str() {
                "Vec" => Form::Each,
                "Option" => Form::Maybe,
                _ => return None,
            };
            argument(segment).map(|element| (form, element))
        }
        _ => None,
    }
}

fn unboxed(ty: &Type) -> &Type {
    match ty {
        Type::Path(path) => match path.path.segments.last() {
            Some(segment) if segment.ident == "Box" => argument(segment).map_or(ty, unboxed),
            _ => ty,
        },
        _ => ty,
    }
}

fn argument(segment: &syn::PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    }
}

fn last_segment(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        _ => None,
    }
}

/// `Parameter` or `Buffer`, if that is what the type names.
pub fn leaf_name(ty: &Type) -> Option<String> {
    last_segment(ty).filter(|name| name == "Parameter" || name == "Buffer")
}

/// What a type is to the borrowing rule.
pub fn tensor_kind(ty: &Type) -> Kind {
    match ty {
        Type::Paren(inner) => tensor_kind(&inner.elem),
        Type::Group(inner) => tensor_kind(&inner.elem),
        Type::Reference(reference) if reference.mutability.is_none() => match tensor_kind(&reference.elem) {
            Kind::Owned => Kind::Borrowed,
            _ => Kind::Other,
        },
        _ if last_segment(ty).as_deref() == Some("Tensor") => Kind::Owned,
        _ => Kind::Other,
    }
}

fn forward(closure: &ExprClosure, errors: &Errors) -> Forward {
    for token in [
        closure.asyncness.map(ToTokens::into_token_stream),
        closure.constness.map(ToTokens::into_token_stream),
        closure.capture.map(ToTokens::into_token_stream),
    ]
    .into_iter()
    .flatten()
    {
        errors.at(&token, format!("a forward is a plain closure: remove `{token}`"));
    }
    if closure.inputs.is_empty() {
        errors.at(&closure.inputs_begin, "a forward needs an input: `|x| …`");
    }
    let inputs = closure.inputs.iter().filter_map(|pat| input(pat, errors)).collect();
    let output = match &closure.output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => Some((**ty).clone()),
    };
    Forward { inputs, output, body: None, called: vec![], calls_forward: false }
}

fn input(pat: &Pat, errors: &Errors) -> Option<Input> {
    let (pat, ty) = match pat {
        Pat::Type(typed) => (&*typed.pat, Some((*typed.ty).clone())),
        pat => (pat, None),
    };
    let kind = ty.as_ref().map_or(Kind::Borrowed, tensor_kind);
    match pat {
        Pat::Ident(ident) if ident.by_ref.is_none() && ident.subpat.is_none() => {
            Some(Input { name: Some(ident.ident.clone()), mutable: ident.mutability, ty, kind })
        }
        Pat::Wild(_) => Some(Input { name: None, mutable: None, ty, kind }),
        other => {
            errors.at(other, "an input is a plain name: take it apart with `let` in the body");
            None
        }
    }
}
