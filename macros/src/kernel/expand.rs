//! Writes a kernel's code: the function, and an empty type of its name that carries the template and the tensor form.
//! Owns `quote!` only; every judgement was made before.
//!
//! The carrier is a type, not a module: items of an `impl` see what the function sees, also inside a function body (as
//! in a documentation example), where `super::*` of a module would not reach.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Expr, ItemFn, parse_quote};

use super::lower::path_of;
use super::model::{Body, Kernel, Param, Row, Shape, Ty};

/// The whole expansion.
pub fn expand(kernel: &Kernel) -> TokenStream {
    let function = match (kernel.signature.row, &kernel.body) {
        (true, body) => row_function(kernel, body.is_some()),
        (false, Some(_)) => scalar_function(&kernel.item),
        (false, None) => scalar_stub(&kernel.item),
    };
    let carrier = carrier(kernel);
    quote!(#function #carrier)
}

/// The function as written.
fn scalar_function(item: &ItemFn) -> TokenStream {
    let mut item = item.clone();
    item.attrs.extend(unused(&item.vis));
    item.into_token_stream()
}

/// A private function whose template alone is used is not dead.
fn unused(vis: &syn::Visibility) -> Option<Attribute> {
    (!matches!(vis, syn::Visibility::Public(_))).then(|| parse_quote!(#[allow(dead_code)]))
}

/// After an error the signature stays for the rest of the user's program, which then has no errors of its own.
fn scalar_stub(item: &ItemFn) -> TokenStream {
    let ItemFn { attrs, vis, sig, .. } = item;
    if sig.receiver().is_some() {
        return TokenStream::new();
    }
    quote!(#(#attrs)* #[allow(dead_code, unused_variables)] #vis #sig { ::core::unreachable!() })
}

/// A row kernel's function takes tensors; its body is kept where only the type checker sees it.
fn row_function(kernel: &Kernel, checked: bool) -> TokenStream {
    let ItemFn { attrs, vis, sig, .. } = &kernel.item;
    let name = &sig.ident;
    let (params, args) = tensor_params(kernel);
    let (returns, _) = tensor_results(kernel);
    let body = sig.receiver().is_none().then(|| {
        let mut item = kernel.item.clone();
        item.attrs.clear();
        item.vis = syn::Visibility::Inherited;
        let mut allowed = quote!(dead_code);
        if checked {
            SignatureCalls.visit_block_mut(&mut item.block);
        } else {
            *item.block = parse_quote!({ ::core::unreachable!() });
            allowed = quote!(dead_code, unused_variables);
        }
        quote! {
            const _: () = {
                #[allow(unused_imports)]
                use ::tapeflow::__macro::Lanes as _;
                #[allow(#allowed)]
                #item
            };
        }
    });
    let unused = unused(vis);
    quote! {
        #(#attrs)*
        #unused
        #[track_caller]
        #vis fn #name(#params) -> #returns {
            #name::map(#args)
        }
        #body
    }
}

/// Turns calls of kernels into calls of what they are checked against.
struct SignatureCalls;

impl VisitMut for SignatureCalls {
    fn visit_expr_call_mut(&mut self, call: &mut syn::ExprCall) {
        visit_mut::visit_expr_call_mut(self, call);
        let Some(path) = path_of(&call.func) else { return };
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if !super::expression::is_builtin(&names) {
            let mut path = path.clone();
            path.segments.push(Ident::new("signature", Span::call_site()).into());
            *call.func = Expr::Path(syn::ExprPath { attrs: vec![], qself: None, path });
        }
    }
}

fn carrier(kernel: &Kernel) -> TokenStream {
    let ItemFn { attrs, vis, sig, .. } = &kernel.item;
    let name = &sig.ident;
    let conditions: Vec<&Attribute> = attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect();
    let doc = format!(" The kernel `{name}` as a template, and mapped over tensors.");
    let template = template(kernel);
    let map = map(kernel);
    let signature = signature(kernel);
    quote! {
        #(#conditions)*
        #[doc = #doc]
        #[allow(non_camel_case_types, dead_code)]
        #vis enum #name {}

        #(#conditions)*
        #[allow(dead_code)]
        impl #name {
            /// What devices and derivatives are made from.
            pub const TEMPLATE: &'static ::tapeflow::__macro::ir::Template = {
                #template
                &TEMPLATE
            };
            #map
            #signature
        }
    }
}

/// `x: impl AsRef<Tensor>, …` and `x, …`
fn tensor_params(kernel: &Kernel) -> (TokenStream, TokenStream) {
    let names = kernel.signature.params.iter().map(|p| &p.name).collect::<Vec<_>>();
    (quote!(#(#names: impl ::core::convert::AsRef<::tapeflow::Tensor>),*), quote!(#(#names),*))
}

/// The results' type, and their names.
fn tensor_results(kernel: &Kernel) -> (TokenStream, Vec<Ident>) {
    let tensor = quote!(::tapeflow::Tensor);
    match kernel.signature.returns.len() {
        1 => (tensor, vec![format_ident!("output")]),
        count => {
            let tensors = vec![tensor; count];
            (quote!((#(#tensors),*)), (0..count).map(|k| format_ident!("output_{k}")).collect())
        }
    }
}

fn map(kernel: &Kernel) -> TokenStream {
    let (params, _) = tensor_params(kernel);
    let (returns, outputs) = tensor_results(kernel);
    let names = kernel.signature.params.iter().map(|p| &p.name);
    let count = Literal::usize_unsuffixed(outputs.len());
    let result = match &outputs[..] {
        [output] => quote!(#output),
        outputs => quote!((#(#outputs),*)),
    };
    let doc = match kernel.signature.row {
        true => " Applies the kernel to every row along the last axis.",
        false => " Applies the kernel to every element; shapes broadcast.",
    };
    quote! {
        #[doc = #doc]
        #[track_caller]
        pub fn map(#params) -> #returns {
            let [#(#outputs),*] = ::tapeflow::__macro::map::<#count>(Self::TEMPLATE, &[#(#names.as_ref()),*]);
            #result
        }
    }
}

/// What the calls of this kernel in row kernels are checked against: elementwise where the arguments are.
fn signature(kernel: &Kernel) -> TokenStream {
    let float = format_ident!("{}", kernel.signature.float.unwrap_or("f32"));
    let mut generics = vec![];
    let mut params = vec![];
    for Param { name, shape } in &kernel.signature.params {
        let ty = match shape {
            Shape::Scalar(Ty::Kernel) if !kernel.signature.row => {
                let generic = format_ident!("T{}", generics.len());
                generics.push(generic.clone());
                quote!(#generic)
            }
            shape => plain_type(shape, &float),
        };
        params.push(quote!(#name: #ty));
    }
    let joined = generics
        .iter()
        .rev()
        .fold(None, |rest: Option<TokenStream>, generic| {
            Some(match rest {
                None => quote!(#generic),
                Some(rest) => quote!(#generic::With<#rest>),
            })
        })
        .unwrap_or(quote!(#float));
    let returns: Vec<TokenStream> = kernel
        .signature
        .returns
        .iter()
        .map(|shape| match shape {
            Shape::Scalar(Ty::Kernel) if !kernel.signature.row => joined.clone(),
            shape => plain_type(shape, &float),
        })
        .collect();
    let defaults = returns.iter().map(|_| quote!(::core::default::Default::default()));
    let (returns, defaults) = match &returns[..] {
        [one] => (one.clone(), quote!(::core::default::Default::default())),
        several => (quote!((#(#several),*)), quote!((#(#defaults),*))),
    };
    let generics = (!generics.is_empty()).then(|| quote!(<#(#generics: ::tapeflow::__macro::Lanes),*>));
    quote! {
        #[doc(hidden)]
        #[allow(unused_variables)]
        pub fn signature #generics (#(#params),*) -> #returns {
            #defaults
        }
    }
}

fn plain_type(shape: &Shape, float: &Ident) -> TokenStream {
    match shape {
        Shape::Row => quote!(::tapeflow::Row),
        Shape::Scalar(Ty::Kernel) => float.to_token_stream(),
        Shape::Scalar(Ty::Fixed(name)) => format_ident!("{}", name.to_lowercase()).to_token_stream(),
        Shape::Tuple(shapes) => {
            let types = shapes.iter().map(|s| plain_type(s, float));
            quote!((#(#types),*))
        }
    }
}

fn template(kernel: &Kernel) -> TokenStream {
    let name = kernel.item.sig.ident.to_string();
    let row = kernel.signature.row;
    let inputs = kernel.signature.params.iter().map(|param| input(param, row));
    let empty = Body { rows: vec![], outputs: vec![], constants: vec![] };
    let body = kernel.body.as_ref().unwrap_or(&empty);
    let constants = &body.constants;
    let rows = body.rows.iter().map(|(row, ty)| template_row(row, *ty));
    let outputs = body.outputs.iter().map(|o| Literal::usize_unsuffixed(*o));
    quote! {
        use ::tapeflow::__macro::ir as __ir;
        #(#constants)*
        #[allow(clippy::approx_constant, clippy::excessive_precision, clippy::unnecessary_cast)]
        static TEMPLATE: __ir::Template = __ir::Template {
            name: #name,
            row: #row,
            inputs: &[#(#inputs),*],
            rows: &[#(#rows),*],
            outputs: &[#(#outputs),*],
        };
    }
}

fn input(param: &Param, row_kernel: bool) -> TokenStream {
    let name = param.name.to_string();
    let (ty, lane) = match &param.shape {
        Shape::Scalar(ty) => (hole(*ty), !row_kernel),
        Shape::Row | Shape::Tuple(_) => (hole(Ty::Kernel), true),
    };
    let extent = if lane { quote!(Lane) } else { quote!(Row) };
    quote! {
        __ir::TemplateInput {
            name: #name,
            ty: #ty,
            extent: __ir::Extent::#extent,
        }
    }
}

fn hole(ty: Ty) -> TokenStream {
    match ty {
        Ty::Kernel => quote!(__ir::Hole::Kernel),
        Ty::Fixed(_) => {
            let dtype = dtype(ty);
            quote!(__ir::Hole::Fixed(#dtype))
        }
    }
}

fn dtype(ty: Ty) -> TokenStream {
    let name = match ty {
        // Only reached after a type error, which rustc reports.
        Ty::Kernel => format_ident!("F32"),
        Ty::Fixed(name) => format_ident!("{name}"),
    };
    quote!(__ir::DType::#name)
}

fn template_row(row: &Row, ty: Ty) -> TokenStream {
    let ir = quote!(__ir);
    let id = |id: &usize| Literal::usize_unsuffixed(*id);
    let row = match row {
        Row::Input(index) => {
            let index = id(index);
            quote!(Input(#index))
        }
        Row::Float(value) => float(*value),
        Row::Int(value) => match ty {
            Ty::Kernel => float(*value as f64),
            _ => {
                let (value, dtype) = (Literal::i64_unsuffixed(*value), dtype(ty));
                quote!(Int(#value, #dtype))
            }
        },
        Row::Bool(value) => quote!(Bool(#value)),
        Row::Constant(path) => match ty {
            Ty::Kernel => quote!(Float(#path as f64)),
            Ty::Fixed("Bool") => quote!(Bool(#path)),
            Ty::Fixed(_) => {
                let dtype = dtype(ty);
                quote!(Int(#path as i64, #dtype))
            }
        },
        Row::Unary(op, a) => {
            let (op, a) = (format_ident!("{op}"), id(a));
            quote!(Unary(#ir::Unary::#op, #a))
        }
        Row::Binary(op, a, b) => {
            let (op, a, b) = (format_ident!("{op}"), id(a), id(b));
            quote!(Binary(#ir::Binary::#op, #a, #b))
        }
        Row::Compare(op, a, b) => {
            let (op, a, b) = (format_ident!("{op}"), id(a), id(b));
            quote!(Compare(#ir::Compare::#op, #a, #b))
        }
        Row::Select(a, b, c) => {
            let (a, b, c) = (id(a), id(b), id(c));
            quote!(Select(#a, #b, #c))
        }
        Row::MulAdd(a, b, c) => {
            let (a, b, c) = (id(a), id(b), id(c));
            quote!(MulAdd(#a, #b, #c))
        }
        Row::Cast(a) => {
            let (a, hole) = (id(a), hole(ty));
            quote!(Cast(#a, #hole))
        }
        Row::Reduce(op, a) => {
            let (op, a) = (format_ident!("{op}"), id(a));
            quote!(Reduce(#ir::Reduce::#op, #a))
        }
        Row::Length => quote!(Length),
        Row::Detach(a) => {
            let a = id(a);
            quote!(Detach(#a))
        }
        Row::Call { kernel, output, args } => {
            let (output, args) = (Literal::u16_unsuffixed(*output), args.iter().map(id));
            quote!(Call { template: #kernel::TEMPLATE, output: #output, args: &[#(#args),*] })
        }
    };
    quote!(#ir::TemplateRow::#row)
}

fn float(value: f64) -> TokenStream {
    if value == f64::INFINITY {
        return quote!(Float(::core::primitive::f64::INFINITY));
    }
    let literal = Literal::f64_unsuffixed(value);
    quote!(Float(#literal))
}
