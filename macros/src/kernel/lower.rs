//! Evaluates a kernel's body symbolically: every expression becomes rows of the template.
//! Owns scopes, assignment (by renaming), statements and values; expressions stand in `expression.rs`, types in
//! `rows.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;

use quote::ToTokens;
use syn::{Block, Expr, Item, ItemConst, ItemFn, Local, Pat, Stmt};

use super::check::TypeReader;
use super::model::{Body, RowId, Shape, Signature, Ty};
use super::rows::Rows;
use crate::errors::Errors;

/// What an expression evaluates to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One scalar or row.
    One(RowId),
    /// Several, in parentheses.
    Tuple(Vec<Value>),
    /// A call whose number of results is not known here: it shows in how the value is used.
    Call(Rc<CallSite>),
    /// An `if` between two such calls.
    Choice(RowId, Box<Value>, Box<Value>),
    /// Of a statement.
    Nothing,
    /// Of what was already reported.
    Mistaken,
}

/// A call of another kernel.
#[derive(Debug, PartialEq)]
pub struct CallSite {
    /// Its function.
    pub kernel: syn::Path,
    /// One row per argument.
    pub args: Vec<RowId>,
}

type Scope = BTreeMap<String, Value>;

/// The state of an evaluation.
pub struct Lower<'a> {
    /// Where mistakes go.
    pub errors: &'a Errors,
    /// What is being built.
    pub rows: Rows,
    /// How types are read.
    pub types: TypeReader<'a>,
    /// Whether this is a row kernel.
    pub row: bool,
    /// The kernel's name.
    pub kernel: syn::Ident,
    scopes: Vec<Scope>,
    constants: Vec<ItemConst>,
}

/// The rows of a kernel's body; `None` after a mistake.
pub fn lower(item: &ItemFn, signature: &Signature, errors: &Errors) -> Option<Body> {
    let types = TypeReader { errors, float: signature.float };
    let mut lower = Lower {
        errors,
        rows: Rows::default(),
        types,
        row: signature.row,
        kernel: item.sig.ident.clone(),
        scopes: vec![Scope::new()],
        constants: vec![],
    };
    for (index, param) in signature.params.iter().enumerate() {
        let (ty, lane) = match param.shape {
            Shape::Scalar(ty) => (ty, !signature.row),
            Shape::Row | Shape::Tuple(_) => (Ty::Kernel, true),
        };
        let id = lower.rows.input(index, ty, lane);
        lower.bind(param.name.to_string(), Value::One(id));
    }
    let result = lower.block(&item.block);
    let outputs = lower.outputs(result, item, signature);
    if !errors.is_empty() {
        return None;
    }
    let (rows, outputs) = lower.rows.finish(&outputs);
    if rows.len() > usize::from(u16::MAX) {
        errors.at(&item.sig.ident, format!("a kernel has at most 65535 instructions, this one {}", rows.len()));
        return None;
    }
    Some(Body { rows, outputs, constants: lower.constants })
}

impl Lower<'_> {
    /// Binds a name in the innermost scope.
    pub fn bind(&mut self, name: String, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, value);
        }
    }

    /// What a name is bound to.
    pub fn local(&self, name: &str) -> Option<&Value> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    /// Every name in scope, for suggestions.
    pub fn locals(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().flat_map(|scope| scope.keys().map(String::as_str))
    }

    /// Gives a name in scope another value; whether there is one.
    pub fn assign(&mut self, name: &str, value: Value) -> bool {
        let found = self.scopes.iter_mut().rev().find_map(|scope| scope.get_mut(name));
        match found {
            Some(slot) => {
                *slot = value;
                true
            }
            None => false,
        }
    }

    /// The single row of a value.
    pub fn one(&mut self, value: Value, at: &dyn ToTokens) -> RowId {
        match value {
            Value::One(id) => id,
            Value::Call(site) => self.output(&site, 0),
            Value::Choice(condition, a, b) => {
                let (a, b) = (self.one(*a, at), self.one(*b, at));
                self.rows.select(condition, a, b)
            }
            Value::Tuple(elements) => {
                let message = format!("one value is wanted here, not {}: name the one you mean", elements.len());
                self.report(at, message);
                self.rows.float(0.0)
            }
            Value::Nothing => {
                self.report(at, "this gives no value: end the block with an expression that has no `;` after it");
                self.rows.float(0.0)
            }
            Value::Mistaken => self.rows.float(0.0),
        }
    }

    /// The parts of a value that is used as `count` of them.
    pub fn several(&mut self, value: Value, count: usize, at: &dyn ToTokens) -> Vec<Value> {
        match value {
            Value::Tuple(elements) if elements.len() == count => elements,
            Value::Call(site) => (0..count).map(|k| Value::One(self.output(&site, k))).collect(),
            Value::Choice(condition, a, b) => {
                let (a, b) = (self.several(*a, count, at), self.several(*b, count, at));
                a.into_iter().zip(b).map(|(a, b)| self.choose(condition, a, b, at)).collect()
            }
            Value::Mistaken => vec![Value::Mistaken; count],
            Value::Tuple(elements) => {
                self.report(at, format!("{} values are wanted here, this gives {}", count, elements.len()));
                vec![Value::Mistaken; count]
            }
            Value::One(_) | Value::Nothing => {
                self.report(at, format!("a tuple of {count} values is wanted here"));
                vec![Value::Mistaken; count]
            }
        }
    }

    fn output(&mut self, site: &CallSite, output: usize) -> RowId {
        self.rows.call(site.kernel.clone(), output as u16, site.args.clone(), self.row)
    }

    /// `if condition { a } else { b }` of values of any kind.
    pub fn choose(&mut self, condition: RowId, a: Value, b: Value, at: &dyn ToTokens) -> Value {
        match (a, b) {
            (a, b) if a == b => a,
            (Value::Mistaken, _) | (_, Value::Mistaken) => Value::Mistaken,
            (Value::Nothing, _) | (_, Value::Nothing) => Value::Nothing,
            (Value::Tuple(a), b) => {
                let b = self.several(b, a.len(), at);
                Value::Tuple(a.into_iter().zip(b).map(|(a, b)| self.choose(condition, a, b, at)).collect())
            }
            (a, Value::Tuple(b)) => {
                let a = self.several(a, b.len(), at);
                Value::Tuple(a.into_iter().zip(b).map(|(a, b)| self.choose(condition, a, b, at)).collect())
            }
            (a @ Value::One(_), b) | (a, b @ Value::One(_)) => {
                let (a, b) = (self.one(a, at), self.one(b, at));
                Value::One(self.rows.select(condition, a, b))
            }
            (a, b) => Value::Choice(condition, Box::new(a), Box::new(b)),
        }
    }

    /// Runs both branches on the scopes as they are; what a branch assigns is selected by the condition.
    pub fn branches(
        &mut self,
        condition: RowId,
        at: &dyn ToTokens,
        then: impl FnOnce(&mut Self) -> Value,
        otherwise: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let before = self.scopes.clone();
        let a = then(self);
        let after_then = std::mem::replace(&mut self.scopes, before);
        let b = otherwise(self);
        let after_else = std::mem::take(&mut self.scopes);
        for (then_scope, else_scope) in after_then.into_iter().zip(after_else) {
            let mut merged = Scope::new();
            for ((name, a), (_, b)) in then_scope.into_iter().zip(else_scope) {
                let value = self.choose(condition, a, b, at);
                merged.insert(name, value);
            }
            self.scopes.push(merged);
        }
        self.choose(condition, a, b, at)
    }

    /// A block in a scope of its own.
    pub fn block(&mut self, block: &Block) -> Value {
        self.scopes.push(Scope::new());
        let mut value = Value::Nothing;
        for stmt in &block.stmts {
            value = self.statement(stmt);
        }
        self.scopes.pop();
        value
    }

    fn statement(&mut self, stmt: &Stmt) -> Value {
        match stmt {
            Stmt::Local(local) => self.local_statement(local),
            Stmt::Item(Item::Const(item)) => self.constants.push(item.clone()),
            Stmt::Item(item) => self.report(item, "a kernel's body has no items but `const`: declare it outside"),
            Stmt::Macro(mac) => self.report(&mac.mac, "a kernel calls no macros: it runs on every device"),
            Stmt::Expr(expr, semi) => {
                let value = self.expression(expr);
                if semi.is_none() {
                    return value;
                }
            }
        }
        Value::Nothing
    }

    fn local_statement(&mut self, local: &Local) {
        let (pat, ty) = match &local.pat {
            Pat::Type(typed) => (&*typed.pat, Some(&*typed.ty)),
            pat => (pat, None),
        };
        let Some(init) = &local.init else {
            // Whatever it is assigned later is its value; rustc checks that it is assigned.
            return self.destructure(pat, Value::Mistaken);
        };
        if let Some((_, diverge)) = &init.diverge {
            self.report(diverge, "a kernel has no `let … else`: every path gives a value");
        }
        let mut value = self.expression(&init.expr);
        if let Some(shape) = ty.and_then(|ty| self.types.read(ty)) {
            value = self.ascribe(value, &shape, &init.expr);
        }
        self.destructure(pat, value);
    }

    /// The value, of the type it is said to have.
    pub fn ascribe(&mut self, value: Value, shape: &Shape, at: &dyn ToTokens) -> Value {
        if value == Value::Mistaken {
            return value;
        }
        match shape {
            Shape::Scalar(ty) => {
                let id = self.one(value, at);
                self.rows.constrain(id, *ty);
                Value::One(id)
            }
            Shape::Row => Value::One(self.one(value, at)),
            Shape::Tuple(shapes) => {
                let values = self.several(value, shapes.len(), at);
                Value::Tuple(values.into_iter().zip(shapes).map(|(v, s)| self.ascribe(v, s, at)).collect())
            }
        }
    }

    fn destructure(&mut self, pat: &Pat, value: Value) {
        match pat {
            Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => self.bind(pat.ident.to_string(), value),
            Pat::Wild(_) => {}
            Pat::Paren(pat) => self.destructure(&pat.pat, value),
            Pat::Tuple(tuple) => {
                let values = self.several(value, tuple.elems.len(), tuple);
                for (pat, value) in tuple.elems.iter().zip(values) {
                    self.destructure(pat, value);
                }
            }
            other => self.report(other, "a kernel binds names and tuples of names: `let a = …;` or `let (a, b) = …;`"),
        }
    }

    fn outputs(&mut self, result: Value, item: &ItemFn, signature: &Signature) -> Vec<RowId> {
        if signature.returns.is_empty() || result == Value::Mistaken {
            return vec![];
        }
        let at: &dyn ToTokens = match item.block.stmts.last() {
            Some(Stmt::Expr(expr, None)) => expr,
            Some(stmt) => stmt,
            None => &item.block,
        };
        if result == Value::Nothing {
            self.report(at, "a kernel ends with its result: an expression with no `;` after it");
            return vec![];
        }
        let values = match signature.returns.len() {
            1 => vec![result],
            count => self.several(result, count, at),
        };
        let mut outputs = vec![];
        for (value, shape) in values.into_iter().zip(&signature.returns) {
            let value = self.ascribe(value, shape, at);
            let id = self.one(value, at);
            if self.row && self.errors.is_empty() {
                self.check_extent(id, shape, at);
            }
            outputs.push(id);
        }
        outputs
    }

    fn check_extent(&mut self, id: RowId, shape: &Shape, at: &dyn ToTokens) {
        match (shape, self.rows.lane(id)) {
            (Shape::Scalar(_), Some(true)) => self.report(
                at,
                "this has one value for each element of the row: return `Row`, and make it one with `Row::from(…)`",
            ),
            (Shape::Row, Some(false)) => {
                self.report(at, "this has one value for the whole row: return `f32`");
            }
            _ => {}
        }
    }

    /// Reports a mistake.
    pub fn report(&self, at: &dyn ToTokens, message: impl std::fmt::Display) {
        self.errors.at(&at.to_token_stream(), message);
    }

    /// Reports a mistake in an expression.
    pub fn mistake(&self, at: &dyn ToTokens, message: impl std::fmt::Display) -> Value {
        self.report(at, message);
        Value::Mistaken
    }
}

/// Whether an identifier is spelled as constants are.
pub fn is_constant_case(name: &str) -> bool {
    name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase)
}

/// The path of a plain expression, if it is one.
pub fn path_of(expr: &Expr) -> Option<&syn::Path> {
    match expr {
        Expr::Path(path) if path.qself.is_none() => Some(&path.path),
        Expr::Paren(inner) => path_of(&inner.expr),
        Expr::Group(inner) => path_of(&inner.expr),
        _ => None,
    }
}
