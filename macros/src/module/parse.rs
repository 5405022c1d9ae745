//! Reads `#[module(…)]` attributes into options. Judges nothing but which options there are.

use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Expr, ExprClosure, Ident, LitStr, Token};

use super::model::Options;
use crate::errors::{Errors, nearest};

/// Where an attribute stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the struct.
    Struct,
    /// On a field.
    Field,
}

impl Place {
    fn known(self) -> &'static [&'static str] {
        match self {
            Place::Struct => &["forward", "recompute"],
            Place::Field => &["skip", "buffer", "rename", "recompute"],
        }
    }

    fn listed(self) -> &'static str {
        match self {
            Place::Struct => "a struct has `forward = |x| …` and `recompute`",
            Place::Field => "a field has `skip`, `buffer`, `rename = \"…\"` and `recompute`",
        }
    }
}

/// All options of the `#[module(…)]` attributes among these.
pub fn options(attrs: &[Attribute], place: Place, errors: &Errors) -> Options {
    let mut options = Options::default();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("module")) {
        if let Err(error) = attr.parse_args_with(|input: ParseStream| read(input, place, &mut options, errors)) {
            errors.add(error);
        }
    }
    options
}

fn read(input: ParseStream, place: Place, options: &mut Options, errors: &Errors) -> syn::Result<()> {
    while !input.is_empty() {
        let name: Ident = input.parse()?;
        let known = place.known();
        match name.to_string().as_str() {
            "forward" if place == Place::Struct => {
                let closure = closure(&name, input)?;
                set(&mut options.forward, closure, &name, errors);
            }
            "recompute" => set(&mut options.recompute, name.clone(), &name, errors),
            "skip" if place == Place::Field => set(&mut options.skip, name.clone(), &name, errors),
            "buffer" if place == Place::Field => set(&mut options.buffer, name.clone(), &name, errors),
            "rename" if place == Place::Field => {
                let value = input.parse::<Token![=]>().and_then(|_| input.parse::<LitStr>()).map_err(|error| {
                    syn::Error::new(error.span(), "`rename` is followed by the name: `rename = \"weight\"`")
                })?;
                set(&mut options.rename, value, &name, errors);
            }
            other => {
                let meant = nearest(other, known.iter().copied());
                let meant = meant.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
                errors.at(&name, format!("there is no option `{other}`: {}{meant}", place.listed()));
                if input.parse::<Option<Token![=]>>()?.is_some() {
                    input.parse::<Expr>()?;
                }
            }
        }
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

fn closure(name: &Ident, input: ParseStream) -> syn::Result<ExprClosure> {
    let form = "`forward` is a closure: `forward = |x| …`";
    if !input.peek(Token![=]) {
        return Err(syn::Error::new_spanned(name, form));
    }
    input.parse::<Token![=]>()?;
    match Expr::parse(input)? {
        Expr::Closure(closure) => Ok(closure),
        other => Err(syn::Error::new_spanned(other, form)),
    }
}

fn set<T>(slot: &mut Option<T>, value: T, name: &Ident, errors: &Errors) {
    if slot.replace(value).is_some() {
        errors.at(name, format!("`{name}` is given twice: keep one"));
    }
}
