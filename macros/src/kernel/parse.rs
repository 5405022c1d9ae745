//! Reads `#[kernel]`'s tokens into syntax. Makes no judgement beyond what the grammar of Rust asks.

use proc_macro2::TokenStream;
use syn::ItemFn;

use crate::errors::Errors;

/// The function under the attribute; `None` if it is not one.
pub fn parse(arguments: TokenStream, item: &TokenStream, errors: &Errors) -> Option<ItemFn> {
    if !arguments.is_empty() {
        errors.at(&arguments, "`#[kernel]` takes no arguments: the function says everything");
    }
    match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => Some(function),
        Err(error) => {
            if syn::parse2::<syn::Item>(item.clone()).is_ok() {
                errors.at(item, "`#[kernel]` stands on a function: `#[kernel] fn silu(x: f32) -> f32 { … }`");
            } else {
                errors.add(error);
            }
            None
        }
    }
}
