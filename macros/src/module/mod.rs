//! `#[derive(Module)]`: a struct visits its parameters by path, and its forward expression becomes a method.

mod binding;
mod call;
mod check;
mod expand;
mod forward;
mod model;
mod parse;
mod scope;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::errors::Errors;

/// parse → model → check → expand.
pub fn module(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let errors = Errors::default();
    let (mut module, closure) = check::module(&input, &errors);
    if let (Some(forward), Some(closure)) = (&mut module.forward, &closure) {
        forward::rewrite(forward, closure, &module.fields, &errors);
        if errors.is_empty() {
            check::check_recomputed(forward, &module.fields, &errors);
        }
    }
    let expansion = expand::expand(&module, errors.is_empty());
    let messages = errors.into_tokens();
    quote!(#messages #expansion)
}
