//! The local names of a forward body, innermost last. Owns shadowing; knows no syntax but identifiers.

use syn::Ident;

use super::model::Kind;

/// The names in scope.
#[derive(Default)]
pub struct Scopes {
    names: Vec<(String, Kind)>,
    starts: Vec<usize>,
}

impl Scopes {
    /// Opens a scope.
    pub fn push(&mut self) {
        self.starts.push(self.names.len());
    }

    /// Closes it, forgetting its names.
    pub fn pop(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.names.truncate(start);
        }
    }

    /// Adds a name, which shadows those before it.
    pub fn bind(&mut self, name: &Ident, kind: Kind) {
        self.names.push((name.to_string(), kind));
    }

    /// Changes what a name in scope is.
    pub fn rebind(&mut self, name: &str, kind: Kind) {
        if let Some((_, slot)) = self.names.iter_mut().rev().find(|(n, _)| n == name) {
            *slot = kind;
        }
    }

    /// What a name is; `None` if no local has it.
    pub fn get(&self, name: &str) -> Option<Kind> {
        self.names.iter().rev().find(|(n, _)| n == name).map(|(_, kind)| *kind)
    }

    /// Whether the name stands for an input of the forward.
    pub fn is_input(&self, name: &str) -> bool {
        let inputs = self.starts.first().copied().unwrap_or(self.names.len());
        self.names.iter().rposition(|(n, _)| n == name).is_some_and(|at| at < inputs)
    }
}
