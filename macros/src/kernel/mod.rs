//! `#[kernel]`: a scalar or row function becomes a template of the scalar IR.

mod check;
mod expand;
mod expression;
mod lower;
mod methods;
mod model;
mod parse;
mod rows;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;

use crate::errors::Errors;

/// parse → model → check and lower → expand.
pub fn kernel(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let errors = Errors::default();
    let expansion = match parse::parse(arguments, &item, &errors) {
        Some(function) => {
            let signature = check::signature(&function, &errors);
            let body = lower::lower(&function, &signature, &errors).filter(|_| errors.is_empty());
            expand::expand(&model::Kernel { item: function, signature, body })
        }
        None => item,
    };
    let messages = errors.into_tokens();
    quote!(#messages #expansion)
}
