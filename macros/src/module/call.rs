//! The code of a field call. Owns its forms; which names are tensors was decided before.

use proc_macro2::{Ident, Span};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Expr, ExprReference, Stmt, parse_quote};

use super::model::{Field, Form, Kind, Role};

/// `name(a, b)` as a block that enters the field's scope and calls its `forward`. Arguments that compute something are
/// evaluated before the scope is entered, so that they are recorded where they stand.
pub fn field_call(field: &Field, args: Vec<Expr>, kinds: &[Kind], span: Span) -> Expr {
    let receiver = Ident::new("self", Span::call_site().located_at(span));
    let member = &field.member;
    if field.function {
        let args = args.into_iter().zip(kinds).map(|(arg, kind)| match kind {
            Kind::Owned => borrowed(arg),
            _ => arg,
        });
        return parse_quote!((#receiver.#member)(#(#args),*));
    }
    let mut lets: Vec<Stmt> = vec![];
    let single = args.len() == 1;
    let mut passed: Vec<Expr> = vec![];
    let mut start = None;
    for (index, (arg, kind)) in args.into_iter().zip(kinds).enumerate() {
        if is_simple(&arg) {
            passed.push(if index == 0 && *kind == Kind::Other { as_tensor(arg) } else { arg });
            continue;
        }
        // The first argument is the tensor, also where its type cannot be told from the source.
        let kind = if index == 0 && *kind == Kind::Other { Kind::Owned } else { *kind };
        if index == 0 && kind == Kind::Owned && matches!(field.form, Form::Each | Form::EachMaybe | Form::MaybeEach) {
            // A fold starts from the value itself.
            passed.push(parse_quote!(()));
            start = Some(arg);
            continue;
        }
        let name = if single { local("input") } else { local(&format!("input_{index}")) };
        lets.push(parse_quote!(let #name = #arg;));
        if index == 0 && kind == Kind::Owned {
            start = Some(parse_quote!(#name));
        }
        passed.push(if kind == Kind::Owned { parse_quote!(&#name) } else { parse_quote!(#name) });
    }
    let start = start.or_else(|| passed.first().map(cloned)).unwrap_or_else(|| parse_quote!(()));
    let block = Parts { field, receiver, start, passed, span, forward: Ident::new("forward", span) };
    let (stmts, last) = match field.form {
        Form::One | Form::None => block.one(),
        Form::Each | Form::EachMaybe | Form::MaybeEach => block.each(),
        Form::Maybe => block.maybe(),
    };
    parse_quote!({ #(#lets)* #(#stmts)* #last })
}

struct Parts<'a> {
    field: &'a Field,
    receiver: Ident,
    /// The first argument as a value.
    start: Expr,
    /// All arguments as they are passed.
    passed: Vec<Expr>,
    span: Span,
    forward: Ident,
}

impl Parts<'_> {
    fn one(self) -> (Vec<Stmt>, Expr) {
        let Parts { field, receiver, passed, span, forward, .. } = self;
        let (member, name) = (&field.member, &field.name);
        let scope = local("_scope");
        let call = quote_spanned!(span=> #receiver.#member.#forward(#(#passed),*));
        let mut stmts: Vec<Stmt> = vec![parse_quote!(let #scope = ::tapeflow::__macro::scope(#name);)];
        stmts.extend(recompute(field));
        (stmts, parse_quote!(#call))
    }

    fn each(self) -> (Vec<Stmt>, Expr) {
        let Parts { field, receiver, start, passed, span, forward } = self;
        let (member, name) = (&field.member, &field.name);
        let (output, index, module, scope) = (local("output"), local("index"), local("module"), local("_scope"));
        let rest = passed.iter().skip(1);
        let call = quote_spanned!(span=> #output = #module.#forward(&#output #(, #rest)*););
        let again = recompute(field);
        let enter = quote!(let #scope = ::tapeflow::__macro::scope_index(#name, #index); #again);
        let (list, body) = match field.form {
            Form::MaybeEach => (quote!(#receiver.#member.iter().flatten()), quote!(#enter #call)),
            Form::EachMaybe => (
                quote!(#receiver.#member.iter()),
                quote!(if let ::core::option::Option::Some(#module) = #module { #enter #call }),
            ),
            _ => (quote!(#receiver.#member.iter()), quote!(#enter #call)),
        };
        let stmts = vec![
            parse_quote!(let mut #output = #start;),
            Stmt::Expr(parse_quote!(for (#index, #module) in #list.enumerate() { #body }), None),
        ];
        (stmts, parse_quote!(#output))
    }

    fn maybe(self) -> (Vec<Stmt>, Expr) {
        let Parts { field, receiver, start, passed, span, forward } = self;
        let (member, name) = (&field.member, &field.name);
        let (module, scope) = (local("module"), local("_scope"));
        let call = quote_spanned!(span=> #module.#forward(#(#passed),*));
        let again = recompute(field);
        let expr = parse_quote! {
            match &#receiver.#member {
                ::core::option::Option::Some(#module) => {
                    let #scope = ::tapeflow::__macro::scope(#name);
                    #again
                    #call
                }
                ::core::option::Option::None => #start,
            }
        };
        (vec![], expr)
    }
}

/// Enters a recompute region, if the field's calls are such.
fn recompute(field: &Field) -> Option<Stmt> {
    let name = local("_recompute");
    field.recompute.as_ref().map(|_| parse_quote!(let #name = ::tapeflow::__macro::recompute_scope();))
}

/// A local of the generated code, which no name of the user's can meet.
fn local(name: &str) -> Ident {
    format_ident!("{name}", span = Span::mixed_site())
}

/// A new handle of a tensor given by reference.
fn cloned(reference: &Expr) -> Expr {
    parse_quote!(::tapeflow::Tensor::clone(#reference))
}

/// A name or field of unknown type, which may be a `Tensor` or a `&Tensor`.
fn as_tensor(expr: Expr) -> Expr {
    let reference = borrowed(expr);
    parse_quote!(::core::convert::AsRef::as_ref(#reference))
}

fn borrowed(expr: Expr) -> Expr {
    match expr {
        Expr::Reference(_) => expr,
        // Built as a node, so that `a + b` is printed in parentheses.
        other => Expr::Reference(ExprReference {
            attrs: vec![],
            and_token: Default::default(),
            mutability: None,
            expr: Box::new(other),
        }),
    }
}

/// Whether evaluating the expression records nothing: names, fields, literals and references to them.
fn is_simple(expr: &Expr) -> bool {
    match expr {
        Expr::Path(_) | Expr::Lit(_) => true,
        Expr::Field(field) => is_simple(&field.base),
        Expr::Reference(reference) => is_simple(&reference.expr),
        Expr::Paren(inner) => is_simple(&inner.expr),
        Expr::Group(inner) => is_simple(&inner.expr),
        _ => false,
    }
}

/// Whether a field is called as the function it holds, not as a module.
pub fn is_function(role: Role, ty: &syn::Type, generics: &syn::Generics) -> bool {
    let text = ty.to_token_stream().to_string();
    let parameter = generics.type_params().any(|p| p.ident == text);
    role == Role::Skipped && (parameter || matches!(ty, syn::Type::FnPtr(_)) || text.contains("dyn "))
}
