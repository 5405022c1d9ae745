//! Rewrites a forward closure's body: field calls become `forward` calls, tensor names are borrowed.
//! Owns the walk and the rule of what is a tensor; statements and patterns stand in
//! `binding.rs`, the code of a field call in `call.rs`, scopes in `scope.rs`.

use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{BinOp, Block, Expr, ExprClosure, ExprMethodCall, Member, UnOp, parse_quote, parse_quote_spanned};

use super::model::{Field, Form, Forward, Kind, Role};
use super::scope::Scopes;
use crate::errors::Errors;

/// Where an expression stands, which decides what becomes of a bare tensor name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A receiver, a scrutinee, the target of an assignment: left alone.
    Plain,
    /// A value of its own: cloned, which for a tensor is a new handle.
    Value,
    /// An operand or argument: borrowed.
    Borrowed,
}

/// The walk over one body.
pub struct Rewrite<'a> {
    /// Of the struct.
    fields: &'a [Field],
    /// Which of them were called.
    called: Vec<usize>,
    /// Whether `.forward` was called.
    calls_forward: bool,
    /// Where mistakes go.
    errors: &'a Errors,
    /// The local names.
    pub scopes: Scopes,
}

/// Fills in the body of a forward.
pub fn rewrite(forward: &mut Forward, closure: &ExprClosure, fields: &[Field], errors: &Errors) {
    let mut rewrite = Rewrite { fields, called: vec![], calls_forward: false, errors, scopes: Scopes::default() };
    for input in &forward.inputs {
        if let Some(name) = &input.name {
            let owned = input.mutable.is_some() && input.ty.is_none();
            rewrite.scopes.bind(name, if owned { Kind::Owned } else { input.kind });
        }
    }
    let mut body = (*closure.body).clone();
    rewrite.expression(&mut body, Place::Value);
    forward.called = rewrite.called;
    forward.calls_forward = rewrite.calls_forward;
    forward.body = errors.is_empty().then_some(body);
}

/// Methods of a tensor that do not give a tensor.
const NOT_TENSORS: &[&str] = &[
    "shape",
    "dims",
    "ndim",
    "numel",
    "len",
    "size",
    "strides",
    "item",
    "to_vec",
    "dtype",
    "device",
    "is_empty",
    "realize",
    "backward",
    "to_string",
    "eq_all",
    "id",
];

impl Rewrite<'_> {
    /// Rewrites an expression; what it is to the borrowing rule.
    pub fn expression(&mut self, expr: &mut Expr, place: Place) -> Kind {
        match expr {
            Expr::Path(path) if path.qself.is_none() && path.path.get_ident().is_some() => self.name(expr, place),
            Expr::Paren(inner) => self.expression(&mut inner.expr, place),
            Expr::Group(inner) => self.expression(&mut inner.expr, place),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => match unary.op {
                UnOp::Neg(_) | UnOp::Not(_) => owned_if(self.expression(&mut unary.expr, Place::Borrowed).is_tensor()),
                _ => {
                    self.expression(&mut unary.expr, Place::Plain);
                    Kind::Other
                }
            },
            Expr::Reference(_) => self.reference(expr),
            Expr::Call(_) => self.call(expr),
            Expr::MethodCall(call) => self.method_call(call),
            Expr::Block(block) => self.block(&mut block.block),
            Expr::If(conditional) => {
                self.scopes.push();
                self.expression(&mut conditional.cond, Place::Plain);
                let then = self.block(&mut conditional.then_branch);
                self.scopes.pop();
                let otherwise = conditional.else_branch.as_mut().map(|(_, e)| self.expression(e, Place::Value));
                if then.is_tensor() { then } else { otherwise.unwrap_or(Kind::Other) }
            }
            Expr::Match(matched) => {
                self.expression(&mut matched.expr, Place::Plain);
                let mut kind = Kind::Other;
                for arm in &mut matched.arms {
                    self.scopes.push();
                    self.pattern(&mut arm.pat, Kind::Other);
                    let arm = self.expression(&mut arm.body, Place::Value);
                    kind = if kind.is_tensor() { kind } else { arm };
                    self.scopes.pop();
                }
                kind
            }
            Expr::Let(condition) => {
                self.expression(&mut condition.expr, Place::Plain);
                self.pattern(&mut condition.pat, Kind::Other);
                Kind::Other
            }
            Expr::ForLoop(for_loop) => {
                self.expression(&mut for_loop.expr, Place::Plain);
                self.scopes.push();
                self.pattern(&mut for_loop.pat, Kind::Other);
                self.block(&mut for_loop.body);
                self.scopes.pop();
                Kind::Other
            }
            Expr::While(while_loop) => {
                self.scopes.push();
                self.expression(&mut while_loop.cond, Place::Plain);
                self.block(&mut while_loop.body);
                self.scopes.pop();
                Kind::Other
            }
            Expr::Closure(closure) => {
                self.scopes.push();
                for input in &mut closure.inputs {
                    self.pattern(input, Kind::Other);
                }
                self.expression(&mut closure.body, Place::Value);
                self.scopes.pop();
                Kind::Other
            }
            Expr::Assign(assign) => self.assign(assign),
            Expr::Field(field) => {
                if !is_self(&field.base) {
                    self.expression(&mut field.base, Place::Plain);
                }
                Kind::Other
            }
            Expr::Index(index) => {
                self.expression(&mut index.expr, Place::Plain);
                self.expression(&mut index.index, Place::Plain);
                Kind::Other
            }
            Expr::Try(tried) => self.expression(&mut tried.expr, Place::Plain),
            Expr::Struct(literal) => {
                for field in &mut literal.fields {
                    // `S { x }` has to name the field once its value is no bare name.
                    field.colon_token.get_or_insert_with(Default::default);
                    self.expression(&mut field.expr, Place::Value);
                }
                if let Some(rest) = &mut literal.rest {
                    self.expression(rest, Place::Plain);
                }
                Kind::Other
            }
            other => {
                visit_mut::visit_expr_mut(self, other);
                Kind::Other
            }
        }
    }

    fn name(&mut self, expr: &mut Expr, place: Place) -> Kind {
        let span = expr.span();
        let Expr::Path(path) = &*expr else { return Kind::Other };
        let Some(ident) = path.path.get_ident() else { return Kind::Other };
        let name = ident.to_string();
        let Some(kind) = self.scopes.get(&name) else {
            if let Some(index) = self.field(&name) {
                let call = match super::check::leaf_name(&self.fields[index].element) {
                    None if self.fields[index].role != Role::Skipped => format!(", or call it as `{name}(x)`"),
                    _ => String::new(),
                };
                self.errors.at(ident, format!("`{name}` is a field: write `self.{name}`{call}"));
            }
            return Kind::Other;
        };
        match (place, kind) {
            (Place::Borrowed, Kind::Owned) => *expr = parse_quote_spanned!(span=> &#expr),
            (Place::Value, Kind::Owned) => *expr = parse_quote!(::tapeflow::Tensor::clone(&#expr)),
            (Place::Value, Kind::Borrowed) => *expr = parse_quote!(::tapeflow::Tensor::clone(#expr)),
            _ => return kind,
        }
        if place == Place::Value { Kind::Owned } else { kind }
    }

    fn binary(&mut self, binary: &mut syn::ExprBinary) -> Kind {
        let (left, right) = match binary.op {
            BinOp::Add(_) | BinOp::Sub(_) | BinOp::Mul(_) | BinOp::Div(_) | BinOp::Rem(_) => {
                (Place::Borrowed, Place::Borrowed)
            }
            BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::RemAssign(_) => (Place::Plain, Place::Borrowed),
            _ => (Place::Plain, Place::Plain),
        };
        let a = self.expression(&mut binary.left, left);
        let b = self.expression(&mut binary.right, right);
        owned_if(left == Place::Borrowed && (a.is_tensor() || b.is_tensor()))
    }

    fn reference(&mut self, expr: &mut Expr) -> Kind {
        let Expr::Reference(reference) = expr else { return Kind::Other };
        // `&[a, b]` is a list of borrowed tensors.
        if let Expr::Array(array) = &mut *reference.expr {
            let mut of_tensors = false;
            for element in &mut array.elems {
                of_tensors |= self.expression(element, Place::Borrowed).is_tensor();
            }
            return if of_tensors { Kind::Borrowed } else { Kind::Other };
        }
        let mutable = reference.mutability.is_some();
        let kind = self.expression(&mut reference.expr, Place::Plain);
        match kind {
            _ if mutable => Kind::Other,
            // `&x` of an input, which is a reference already, is the input.
            Kind::Borrowed if matches!(*reference.expr, Expr::Path(_)) => {
                *expr = (*reference.expr).clone();
                Kind::Borrowed
            }
            Kind::Owned | Kind::Borrowed => Kind::Borrowed,
            Kind::Other => Kind::Other,
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Kind {
        let Expr::Call(call) = expr else { return Kind::Other };
        if let Some(index) = self.called_field(&call.func) {
            let span = call.func.span();
            let args = call.args.iter().cloned().collect();
            *expr = self.field_call(index, args, span);
            return Kind::Owned;
        }
        let constructs = matches!(&*call.func, Expr::Path(path)
            if path.path.segments.last().is_some_and(|s| s.ident.to_string().starts_with(char::is_uppercase)));
        if !matches!(&*call.func, Expr::Path(_)) {
            self.expression(&mut call.func, Place::Plain);
        }
        let place = if constructs { Place::Value } else { Place::Borrowed };
        // `Tensor::arange(…)` makes a tensor of what are none.
        let mut of_tensor = matches!(&*call.func, Expr::Path(path)
            if path.path.segments.iter().rev().nth(1).is_some_and(|s| s.ident == "Tensor"));
        for arg in &mut call.args {
            of_tensor |= self.expression(arg, place).is_tensor();
        }
        owned_if(of_tensor && !constructs)
    }

    /// The field that `name(…)`, `self.0(…)` or `(self.name)(…)` calls.
    fn called_field(&self, func: &Expr) -> Option<usize> {
        match func {
            Expr::Path(path) if path.qself.is_none() => {
                let name = path.path.get_ident()?.to_string();
                if self.scopes.get(&name).is_some() { None } else { self.field(&name) }
            }
            Expr::Paren(inner) => self.called_field(&inner.expr),
            Expr::Group(inner) => self.called_field(&inner.expr),
            Expr::Field(field) if is_self(&field.base) => self.fields.iter().position(|f| f.member == field.member),
            _ => None,
        }
    }

    fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| matches!(&f.member, Member::Named(ident) if ident == name))
    }

    fn field_call(&mut self, index: usize, mut args: Vec<Expr>, span: proc_macro2::Span) -> Expr {
        let fields = self.fields;
        let field = &fields[index];
        let member = match &field.member {
            Member::Named(ident) => ident.to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        };
        if args.is_empty() {
            self.errors.at_span(span, format!("a forward needs its input: `{member}(x)`"));
        } else if field.form == Form::None && field.role != Role::Skipped {
            let message = match super::check::leaf_name(&field.element) {
                Some(leaf) => format!("`{member}` is a `{leaf}`, not a module: write `self.{member}.tensor()`"),
                None => {
                    format!(
                        "collections of collections have no call: write a `for` loop over `self.{member}` that calls `.forward`"
                    )
                }
            };
            self.errors.at_span(span, message);
        }
        if !self.called.contains(&index) {
            self.called.push(index);
        }
        let kinds: Vec<Kind> = args.iter_mut().map(|arg| self.expression(arg, Place::Borrowed)).collect();
        super::call::field_call(field, args, &kinds, span)
    }

    fn method_call(&mut self, call: &mut ExprMethodCall) -> Kind {
        let receiver = self.expression(&mut call.receiver, Place::Plain);
        for arg in &mut call.args {
            self.expression(arg, Place::Borrowed);
        }
        let method = call.method.to_string();
        match method.as_str() {
            "tensor" if call.args.is_empty() => Kind::Owned,
            "forward" => {
                self.calls_forward = true;
                Kind::Owned
            }
            "as_ref" | "borrow" if receiver.is_tensor() => Kind::Borrowed,
            method => owned_if(receiver.is_tensor() && !NOT_TENSORS.contains(&method)),
        }
    }

    fn assign(&mut self, assign: &mut syn::ExprAssign) -> Kind {
        let kind = self.expression(&mut assign.right, Place::Value);
        self.expression(&mut assign.left, Place::Plain);
        if let Expr::Path(path) = &*assign.left
            && let Some(ident) = path.path.get_ident()
        {
            let name = ident.to_string();
            match self.scopes.get(&name) {
                Some(Kind::Other) => self.scopes.rebind(&name, kind),
                Some(Kind::Borrowed) if self.scopes.is_input(&name) => {
                    self.errors.at(ident, format!("the input `{name}` is borrowed: take it as `|mut {name}|`"));
                }
                _ => {}
            }
        }
        Kind::Other
    }
}

/// What has no rule of its own above: its parts are values.
impl VisitMut for Rewrite<'_> {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        self.expression(expr, Place::Value);
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        self.block(block);
    }
}

fn owned_if(tensor: bool) -> Kind {
    if tensor { Kind::Owned } else { Kind::Other }
}

fn is_self(expr: &Expr) -> bool {
    matches!(expr, Expr::Path(path) if path.path.is_ident("self"))
}
