//! The statements of a forward body: what its blocks, `let`s and patterns bind.
//! Owns which names become tensors; expressions stand in `forward.rs`.

use syn::{Block, Expr, Local, Pat, Stmt};

use super::check::tensor_kind;
use super::forward::{Place, Rewrite};
use super::model::Kind;

impl Rewrite<'_> {
    /// Rewrites a block in a scope of its own; what its last expression is.
    pub fn block(&mut self, block: &mut Block) -> Kind {
        self.scopes.push();
        let mut kind = Kind::Other;
        for stmt in &mut block.stmts {
            kind = match stmt {
                Stmt::Local(local) => {
                    self.local(local);
                    Kind::Other
                }
                Stmt::Expr(expr, None) => self.expression(expr, Place::Value),
                Stmt::Expr(expr, Some(_)) => {
                    self.expression(expr, Place::Plain);
                    Kind::Other
                }
                Stmt::Item(_) | Stmt::Macro(_) => Kind::Other,
            };
        }
        self.scopes.pop();
        kind
    }

    fn local(&mut self, local: &mut Local) {
        let mut kind = Kind::Other;
        let mut parts = None;
        if let Some(init) = &mut local.init {
            parts = match &mut *init.expr {
                Expr::Tuple(tuple) => {
                    Some(tuple.elems.iter_mut().map(|e| self.expression(e, Place::Value)).collect::<Vec<_>>())
                }
                other => {
                    kind = self.expression(other, Place::Value);
                    None
                }
            };
            if let Some((_, diverge)) = &mut init.diverge {
                self.expression(diverge, Place::Value);
            }
        }
        match (&mut local.pat, parts) {
            (Pat::Tuple(tuple), Some(kinds)) if tuple.elems.len() == kinds.len() => {
                for (pat, kind) in tuple.elems.iter_mut().zip(kinds) {
                    self.pattern(pat, kind);
                }
            }
            (pat, _) => self.pattern(pat, kind),
        }
    }

    /// Binds the names of a pattern: all are of the kind, except where a type is written.
    pub fn pattern(&mut self, pat: &mut Pat, kind: Kind) {
        match pat {
            Pat::Ident(ident) => {
                self.scopes.bind(&ident.ident, kind);
                if let Some((_, inner)) = &mut ident.subpat {
                    self.pattern(inner, kind);
                }
            }
            Pat::Type(typed) => {
                let kind = tensor_kind(&typed.ty);
                self.pattern(&mut typed.pat, kind);
            }
            Pat::Paren(inner) => self.pattern(&mut inner.pat, kind),
            Pat::Reference(inner) => self.pattern(&mut inner.pat, kind),
            Pat::Tuple(tuple) => tuple.elems.iter_mut().for_each(|p| self.pattern(p, kind)),
            Pat::Slice(slice) => slice.elems.iter_mut().for_each(|p| self.pattern(p, kind)),
            Pat::Or(or) => or.cases.iter_mut().for_each(|p| self.pattern(p, kind)),
            Pat::TupleStruct(tuple) => tuple.elems.iter_mut().for_each(|p| self.pattern(p, Kind::Other)),
            Pat::Struct(literal) => literal.fields.iter_mut().for_each(|f| self.pattern(&mut f.pat, Kind::Other)),
            Pat::Guard(guarded) => {
                self.pattern(&mut guarded.pat, kind);
                self.expression(&mut guarded.guard, Place::Plain);
            }
            _ => {}
        }
    }
}
