//! Writes the impls of a module: `Module`, and `Forward` or an inherent `forward` with its `vjp`.
//! Owns `quote!` and the bounds of generics; every judgement was made before.

use std::collections::BTreeSet;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{Expr, Generics, Stmt, Type, WherePredicate, parse_quote};

use super::model::{Field, Forward, Input, Module, Role};

/// The whole expansion; `valid` says that there was no error, without which only the signatures are written.
pub fn expand(module: &Module, valid: bool) -> TokenStream {
    let visit = visit(module, valid);
    let forward = module.forward.as_ref().map(|f| forward(module, f));
    quote!(#visit #forward)
}

fn visit(module: &Module, valid: bool) -> TokenStream {
    let visited: Vec<&Field> = module.fields.iter().filter(|f| valid && f.role != Role::Skipped).collect();
    let generics = with_bounds(&module.generics, visited.iter().map(|f| &f.element), &parse_quote!(::tapeflow::Module));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let ident = &module.ident;
    let visitor = format_ident!("{}", if visited.is_empty() { "_visitor" } else { "visitor" });
    let fields = visited.iter().map(|field| {
        let Field { member, name, ty, .. } = field;
        let check = (field.role == Role::Buffer)
            .then(|| quote_spanned!(ty.span()=> let _: &::tapeflow::Buffer = &self.#member;));
        let visit = quote_spanned!(ty.span()=> ::tapeflow::Module::visit(&self.#member, #visitor););
        quote!(#check #visitor.enter(#name); #visit #visitor.leave();)
    });
    quote! {
        #[automatically_derived]
        impl #impl_generics ::tapeflow::Module for #ident #ty_generics #where_clause {
            fn visit(&self, #visitor: &mut dyn ::tapeflow::Visitor) {
                #(#fields)*
            }
        }
    }
}

/// The generics with the bound on each of these types that names a parameter.
fn with_bounds<'a>(generics: &Generics, types: impl Iterator<Item = &'a Type>, bound: &syn::Path) -> Generics {
    let mut bounded = generics.clone();
    let names: BTreeSet<String> = generics.type_params().map(|p| p.ident.to_string()).collect();
    let mut seen = BTreeSet::new();
    for ty in types {
        let mut finder = Mentions { names: &names, found: false };
        finder.visit_type_mut(&mut ty.clone());
        if finder.found && seen.insert(ty.to_token_stream().to_string()) {
            let predicate: WherePredicate = parse_quote!(#ty: #bound);
            bounded.make_where_clause().predicates.push(predicate);
        }
    }
    bounded
}

struct Mentions<'a> {
    names: &'a BTreeSet<String>,
    found: bool,
}

impl VisitMut for Mentions<'_> {
    fn visit_ident_mut(&mut self, ident: &mut Ident) {
        self.found |= self.names.contains(&ident.to_string());
    }

    fn visit_type_mut(&mut self, ty: &mut Type) {
        visit_mut::visit_type_mut(self, ty);
    }
}

fn forward(module: &Module, forward: &Forward) -> TokenStream {
    let called = module.fields.iter().enumerate().filter(|(k, f)| forward.called.contains(k) && !f.function);
    let generics = with_bounds(&module.generics, called.map(|(_, f)| &f.element), &parse_quote!(::tapeflow::Forward));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let ident = &module.ident;
    let params = forward.inputs.iter().map(param);
    let output = match &forward.output {
        Some(ty) => ty.to_token_stream(),
        None => quote!(::tapeflow::Tensor),
    };
    let body = body(module, forward);
    if forward.is_trait() {
        return quote! {
            #[automatically_derived]
            impl #impl_generics ::tapeflow::Forward for #ident #ty_generics #where_clause {
                #[track_caller]
                fn forward(&self, #(#params),*) -> #output {
                    #body
                }
            }
        };
    }
    let vjp = forward.is_of_tensors().then(|| vjp(forward));
    quote! {
        #[automatically_derived]
        impl #impl_generics #ident #ty_generics #where_clause {
            /// Records the module's forward pass.
            #[track_caller]
            pub fn forward(&self, #(#params),*) -> #output {
                #body
            }
            #vjp
        }
    }
}

fn param(input: &Input) -> TokenStream {
    let name = match &input.name {
        Some(name) => name.to_token_stream(),
        None => quote!(_),
    };
    match &input.ty {
        Some(ty) => {
            let mutable = &input.mutable;
            quote!(#mutable #name: #ty)
        }
        None => quote!(#name: &::tapeflow::Tensor),
    }
}

fn body(module: &Module, forward: &Forward) -> TokenStream {
    let Some(body) = &forward.body else { return quote!(::core::unreachable!()) };
    let modules = forward.called.iter().any(|index| !module.fields[*index].function);
    let import = (modules || forward.calls_forward).then(|| {
        quote! {
            #[allow(unused_imports)]
            use ::tapeflow::Forward as _;
        }
    });
    let owned = forward.inputs.iter().filter(|i| i.mutable.is_some() && i.ty.is_none()).filter_map(|i| i.name.as_ref());
    let owned = owned.map(|name| quote!(let mut #name = ::tapeflow::Tensor::clone(#name);));
    let again = module.recompute.then(|| {
        let name = Ident::new("_recompute", Span::mixed_site());
        quote!(let #name = ::tapeflow::__macro::recompute_scope();)
    });
    let body = match body {
        Expr::Block(block) if block.label.is_none() && block.attrs.is_empty() => {
            let stmts = &block.block.stmts;
            quote!(#(#stmts)*)
        }
        // As a statement, so that a leading block is set in parentheses where the grammar needs it.
        other => Stmt::Expr(other.clone(), None).into_token_stream(),
    };
    quote!(#import #again #(#owned)* #body)
}

fn vjp(forward: &Forward) -> TokenStream {
    let names: Vec<Ident> = forward
        .inputs
        .iter()
        .enumerate()
        .map(|(k, input)| input.name.clone().unwrap_or_else(|| format_ident!("input_{k}")))
        .collect();
    let cotangent = Ident::new("cotangent", Span::mixed_site());
    let inputs = (0..names.len()).map(|k| {
        let k = proc_macro2::Literal::usize_unsuffixed(k);
        quote!(&inputs[#k])
    });
    quote! {
        /// The cotangents of the inputs, in order, and the gradients of the parameters, for a cotangent of the output.
        #[track_caller]
        pub fn vjp(
            &self,
            #(#names: &::tapeflow::Tensor,)*
            #cotangent: &::tapeflow::Tensor,
        ) -> ::tapeflow::Result<(::std::vec::Vec<::tapeflow::Tensor>, ::tapeflow::Gradients)> {
            ::tapeflow::__macro::vjp(&[#(#names),*], #cotangent, |inputs| self.forward(#(#inputs),*))
        }
    }
}
