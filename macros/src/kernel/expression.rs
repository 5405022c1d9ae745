//! Evaluates a kernel's expressions to rows.
//! Owns which expressions a kernel may have, and what is said about the others; scopes stand in `lower.rs`.

use std::rc::Rc;

use quote::{ToTokens, quote};
use syn::{BinOp, Expr, ExprBinary, ExprCall, ExprIf, ExprMethodCall, Lit, Member, UnOp};

use super::lower::{CallSite, Lower, Value, is_constant_case, path_of};
use super::methods::{METHODS, Method, SYNONYMS};
use super::model::{RowId, Shape, Ty};
use crate::errors::nearest;

impl Lower<'_> {
    /// An expression that gives one value.
    fn operand(&mut self, expr: &Expr) -> RowId {
        let value = self.expression(expr);
        self.one(value, expr)
    }

    /// Any expression.
    pub fn expression(&mut self, expr: &Expr) -> Value {
        match expr {
            Expr::Paren(inner) => self.expression(&inner.expr),
            Expr::Group(inner) => self.expression(&inner.expr),
            Expr::Lit(literal) => self.literal(&literal.lit),
            Expr::Path(_) => self.name(expr),
            Expr::Unary(unary) => self.unary(unary),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Assign(assign) => {
                let value = self.expression(&assign.right);
                self.assign_to(&assign.left, value)
            }
            Expr::Cast(cast) => {
                let operand = self.operand(&cast.expr);
                match self.types.read(&cast.ty) {
                    Some(Shape::Scalar(ty)) => Value::One(self.rows.cast(operand, ty)),
                    Some(_) => self.mistake(&cast.ty, "a cast gives a scalar: write `as f32`, or another scalar type"),
                    None => Value::Mistaken,
                }
            }
            Expr::If(conditional) => self.conditional(conditional),
            Expr::Block(block) => {
                if let Some(label) = &block.label {
                    self.report(label, "a kernel has no jumps: remove the label");
                }
                self.block(&block.block)
            }
            Expr::Tuple(tuple) if tuple.elems.is_empty() => Value::Nothing,
            Expr::Tuple(tuple) => Value::Tuple(tuple.elems.iter().map(|e| self.expression(e)).collect()),
            Expr::Field(field) => {
                let Member::Unnamed(index) = &field.member else {
                    return self
                        .mistake(&field.member, "a kernel's values have no fields but those of tuples: `pair.0`");
                };
                let index = index.index as usize;
                match self.expression(&field.base) {
                    Value::Tuple(elements) if index < elements.len() => elements[index].clone(),
                    value @ (Value::Call(_) | Value::Choice(..)) => {
                        self.several(value, index + 1, &field.base).pop().unwrap_or(Value::Mistaken)
                    }
                    Value::Mistaken => Value::Mistaken,
                    _ => self.mistake(&field.member, "there is no such element"),
                }
            }
            Expr::Call(call) => self.call(call),
            Expr::MethodCall(call) => self.method_call(call),
            other => self.unsupported(other),
        }
    }

    fn unsupported(&mut self, expr: &Expr) -> Value {
        match expr {
            Expr::ForLoop(e) => self.mistake(&e.for_token, LOOP),
            Expr::While(e) => self.mistake(&e.while_token, LOOP),
            Expr::Loop(e) => self.mistake(&e.loop_token, LOOP),
            Expr::Match(e) => self.mistake(&e.match_token, "a kernel has no `match`: write `if … { … } else { … }`"),
            Expr::Return(e) => self.mistake(
                &e.return_token,
                "a kernel has no `return`: the last expression is the result, and `if … else …` chooses",
            ),
            Expr::Reference(e) => self.mistake(&e.and_token, "a kernel works on values: remove the `&`"),
            Expr::RawAddr(e) => self.mistake(&e.and_token, "a kernel works on values: remove the `&`"),
            Expr::Macro(e) => self.mistake(&e.mac, "a kernel calls no macros: it runs on every device"),
            Expr::Closure(e) => {
                self.mistake(e, "a kernel has no closures: write another `#[kernel]` function and call it")
            }
            Expr::Index(e) => self.mistake(
                &e.index,
                "a kernel does not index: it sees one element, or a row by its reductions and arithmetic",
            ),
            Expr::Array(e) => self.mistake(e, "a kernel has no arrays: use a tuple"),
            Expr::Repeat(e) => self.mistake(e, "a kernel has no arrays: use a tuple"),
            Expr::Struct(e) => self.mistake(&e.path, "a kernel has no structs: use a tuple"),
            Expr::Unsafe(e) => self.mistake(&e.unsafe_token, "a kernel has no `unsafe` code"),
            Expr::Await(e) => self.mistake(&e.await_token, "a kernel does not wait: remove `.await`"),
            Expr::Async(e) => self.mistake(&e.async_token, "a kernel is not async: remove `async`"),
            Expr::Try(e) => self.mistake(&e.question_token, "a kernel cannot fail: remove the `?`"),
            Expr::Break(e) => self.mistake(&e.break_token, LOOP),
            Expr::Continue(e) => self.mistake(&e.continue_token, LOOP),
            Expr::Range(e) => self.mistake(e, "a kernel has no ranges"),
            Expr::Let(e) => self.mistake(&e.let_token, "a kernel has no `if let`: its values are scalars"),
            other => self.mistake(other, "a kernel has no such expression: use arithmetic, `if`, `let` and calls"),
        }
    }

    fn literal(&mut self, literal: &Lit) -> Value {
        let id = match literal {
            Lit::Float(literal) => {
                self.check_float_suffix(literal, literal.suffix());
                let Ok(value) = literal.base10_parse::<f64>() else {
                    return self.mistake(literal, "this is no float that fits an `f64`");
                };
                self.rows.float(value)
            }
            Lit::Int(literal) => {
                let Ok(value) = literal.base10_parse::<i64>() else {
                    return self.mistake(literal, "this does not fit an `i64`, the widest integer of a kernel");
                };
                let suffix = literal.suffix();
                if suffix.is_empty() {
                    self.rows.integer(value)
                } else if suffix == "f32" || suffix == "f64" {
                    self.check_float_suffix(literal, suffix);
                    self.rows.float(value as f64)
                } else {
                    let name = proc_macro2::Ident::new(suffix, literal.span());
                    let Some(Shape::Scalar(ty)) = self.types.read(&syn::parse_quote!(#name)) else {
                        return Value::Mistaken;
                    };
                    let id = self.rows.integer(value);
                    self.rows.constrain(id, ty);
                    id
                }
            }
            Lit::Bool(literal) => self.rows.bool(literal.value),
            other => return self.mistake(other, "a kernel's literals are numbers, `true` and `false`"),
        };
        Value::One(id)
    }

    fn check_float_suffix(&mut self, at: &dyn ToTokens, suffix: &str) {
        let spelled = self.types.float.unwrap_or("f32");
        if !suffix.is_empty() && suffix != spelled {
            self.report(at, format!("this kernel's floats are `{spelled}`: leave out the suffix `{suffix}`"));
        }
    }

    fn name(&mut self, expr: &Expr) -> Value {
        let Some(path) = path_of(expr) else {
            return self.mistake(expr, "name a constant by its path alone, such as `limits::LARGEST`");
        };
        if let Some(ident) = path.get_ident() {
            let name = ident.to_string();
            if let Some(value) = self.local(&name) {
                return value.clone();
            }
            if !is_constant_case(&name) {
                let hint = match nearest(&name, self.locals()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "constants are written in capitals, such as `SCALE`".to_string(),
                };
                return self.mistake(ident, format!("no local is called `{name}`: {hint}"));
            }
        }
        Value::One(self.rows.constant(constant_expression(path)))
    }

    fn unary(&mut self, unary: &syn::ExprUnary) -> Value {
        let op = match &unary.op {
            UnOp::Neg(_) => "Neg",
            UnOp::Not(_) => "Not",
            other => return self.mistake(other, "a kernel works on values: remove the `*`"),
        };
        let operand = self.operand(&unary.expr);
        Value::One(self.rows.unary(op, operand))
    }

    fn binary(&mut self, binary: &ExprBinary) -> Value {
        let Some((op, assigns)) = operator(&binary.op) else {
            return self.mistake(&binary.op, "a kernel does not shift: multiply or divide by a power of two");
        };
        let (left, right) = (self.operand(&binary.left), self.operand(&binary.right));
        if let "And" | "Or" = op
            && let BinOp::And(_) | BinOp::Or(_) = binary.op
        {
            self.rows.constrain(left, Ty::Fixed("Bool"));
        }
        let id = match op {
            "Eq" | "Ne" | "Lt" | "Le" | "Gt" | "Ge" => self.rows.compare(op, left, right),
            _ => self.rows.binary(op, left, right),
        };
        if assigns { self.assign_to(&binary.left, Value::One(id)) } else { Value::One(id) }
    }

    fn assign_to(&mut self, target: &Expr, value: Value) -> Value {
        match target {
            Expr::Tuple(tuple) => {
                let values = self.several(value, tuple.elems.len(), tuple);
                for (target, value) in tuple.elems.iter().zip(values) {
                    self.assign_to(target, value);
                }
                return Value::Nothing;
            }
            Expr::Infer(_) => return Value::Nothing,
            _ => {}
        }
        match path_of(target).and_then(|path| path.get_ident()) {
            Some(ident) if self.assign(&ident.to_string(), value) => Value::Nothing,
            _ => self.mistake(target, "only a `let mut` name can be assigned"),
        }
    }

    fn conditional(&mut self, conditional: &ExprIf) -> Value {
        let condition = self.operand(&conditional.cond);
        let otherwise = conditional.else_branch.as_ref().map(|(_, branch)| &**branch);
        self.branches(
            condition,
            conditional,
            |lower| lower.block(&conditional.then_branch),
            |lower| otherwise.map_or(Value::Nothing, |branch| lower.expression(branch)),
        )
    }

    fn call(&mut self, call: &ExprCall) -> Value {
        let Some(path) = path_of(&call.func) else {
            return self.mistake(&call.func, "a kernel calls other kernels by their names");
        };
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        match &names[..] {
            [.., ty, function] if is_builtin(&names) => return self.associated(call, ty, function),
            [function] if is_builtin(&names) => return self.associated(call, "f32", function),
            _ => {}
        }
        if let Some(ident) = path.get_ident() {
            if self.local(&ident.to_string()).is_some() {
                return self.mistake(ident, format!("`{ident}` is a value here, and a kernel has no function values"));
            }
            if *ident == self.kernel {
                return self.mistake(ident, "a kernel does not call itself: recursion is a loop, which no device runs");
            }
        }
        let args = call.args.iter().map(|arg| self.operand(arg)).collect();
        Value::Call(Rc::new(CallSite { kernel: path.clone(), args }))
    }

    /// `f32::exp(x)` is `x.exp()`; `f32::from(n)` and `Row::from(x)` convert.
    fn associated(&mut self, call: &ExprCall, ty: &str, function: &str) -> Value {
        let args: Vec<RowId> = call.args.iter().map(|arg| self.operand(arg)).collect();
        if function != "from" {
            return match args.is_empty() {
                true => self.mistake(&call.func, format!("`{function}` needs a value")),
                false => self.method(function, &args, &call.func, &call.func),
            };
        }
        let ident = proc_macro2::Ident::new(ty, proc_macro2::Span::call_site());
        match (&args[..], self.types.read(&syn::parse_quote!(#ident))) {
            ([value], Some(Shape::Row)) => Value::One(*value),
            ([value], Some(Shape::Scalar(ty))) => Value::One(self.rows.cast(*value, ty)),
            ([_], _) => Value::Mistaken,
            _ => self.mistake(&call.func, "`from` takes one value"),
        }
    }

    fn method_call(&mut self, call: &ExprMethodCall) -> Value {
        let receiver = self.operand(&call.receiver);
        let mut operands = vec![receiver];
        operands.extend(call.args.iter().map(|arg| self.operand(arg)).collect::<Vec<_>>());
        if let Some(turbofish) = &call.turbofish {
            self.report(turbofish, "a kernel's methods have no type arguments");
        }
        self.method(&call.method.to_string(), &operands, &call.method, call)
    }

    fn method(&mut self, name: &str, operands: &[RowId], at: &dyn ToTokens, whole: &dyn ToTokens) -> Value {
        let arguments = operands.len() - 1;
        if name == "sin_cos" && arguments == 0 {
            let (sin, cos) = (self.rows.function("Sin", operands[0]), self.rows.function("Cos", operands[0]));
            return Value::Tuple(vec![Value::One(sin), Value::One(cos)]);
        }
        let named: Vec<&Method> = METHODS.iter().filter(|m| m.name == name).collect();
        let Some(method) = named.iter().find(|m| m.arguments == arguments) else {
            return self.mistake_in_method(name, &named, arguments, at, whole);
        };
        if method.reduces && !self.row {
            let hint = if name == "max" || name == "min" { ", or give it the other value" } else { "" };
            return self.mistake(
                at,
                format!("`{name}` reduces a row, and this kernel sees one element: make the parameter a `Row`{hint}"),
            );
        }
        Value::One((method.build)(&mut self.rows, operands))
    }

    fn mistake_in_method(
        &mut self,
        name: &str,
        named: &[&Method],
        arguments: usize,
        at: &dyn ToTokens,
        whole: &dyn ToTokens,
    ) -> Value {
        // In a scalar kernel `max` has one form, in a row kernel two.
        let forms: Vec<usize> = named.iter().filter(|m| self.row || !m.reduces).map(|m| m.arguments).collect();
        if !forms.is_empty() {
            let counts: Vec<String> = forms.iter().map(ToString::to_string).collect();
            let plural = if forms == [1] { "" } else { "s" };
            let message = format!("`{name}` takes {} argument{plural}, not {arguments}", counts.join(" or "));
            return self.mistake(whole, message);
        }
        let meant = SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, meant)| *meant);
        let known = METHODS.iter().filter(|m| self.row || !m.reduces).map(|m| m.name);
        let hint = match meant.or_else(|| nearest(name, known)) {
            Some(operator) if operator.contains(' ') => format!("use {operator}"),
            Some(near) => format!("did you mean `{near}`?"),
            None => "see the documentation of `#[kernel]` for those it has".to_string(),
        };
        self.mistake(at, format!("a kernel has no method `{name}`: {hint}"))
    }
}

/// Whether a call is of a function that is known here: `detach`, `erf`, or a method called by its path.
pub fn is_builtin(path: &[String]) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(names[..], [.., "detach" | "erf"] | [.., "f32" | "f64" | "Row" | "bool" | "u8" | "i32" | "u32" | "i64", _])
}

const LOOP: &str = "a kernel has no loops: it is one expression of each element, which every device runs in parallel";

/// The constant as an expression to be cast to `f64`. Those of the standard library are taken at full precision.
fn constant_expression(path: &syn::Path) -> proc_macro2::TokenStream {
    let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
    match &names[..] {
        [.., float, consts, name] if float == "f32" && consts == "consts" => {
            let name = proc_macro2::Ident::new(name, path.segments[names.len() - 1].ident.span());
            quote!(::core::f64::consts::#name)
        }
        _ => path.to_token_stream(),
    }
}

/// The row of an operator, and whether it assigns.
fn operator(op: &BinOp) -> Option<(&'static str, bool)> {
    Some(match op {
        BinOp::Add(_) => ("Add", false),
        BinOp::Sub(_) => ("Sub", false),
        BinOp::Mul(_) => ("Mul", false),
        BinOp::Div(_) => ("Div", false),
        BinOp::Rem(_) => ("Rem", false),
        BinOp::And(_) | BinOp::BitAnd(_) => ("And", false),
        BinOp::Or(_) | BinOp::BitOr(_) => ("Or", false),
        BinOp::BitXor(_) => ("Xor", false),
        BinOp::Eq(_) => ("Eq", false),
        BinOp::Ne(_) => ("Ne", false),
        BinOp::Lt(_) => ("Lt", false),
        BinOp::Le(_) => ("Le", false),
        BinOp::Gt(_) => ("Gt", false),
        BinOp::Ge(_) => ("Ge", false),
        BinOp::AddAssign(_) => ("Add", true),
        BinOp::SubAssign(_) => ("Sub", true),
        BinOp::MulAssign(_) => ("Mul", true),
        BinOp::DivAssign(_) => ("Div", true),
        BinOp::RemAssign(_) => ("Rem", true),
        BinOp::BitAndAssign(_) => ("And", true),
        BinOp::BitOrAssign(_) => ("Or", true),
        BinOp::BitXorAssign(_) => ("Xor", true),
        _ => return None,
    })
}
