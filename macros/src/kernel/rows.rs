//! Builds rows and infers their dtypes and extents.
//! Owns type variables (a literal `1` or a constant `K` takes its dtype from its use); knows no Rust syntax.

use super::model::{Row, RowId, Ty};

/// The number of a type variable.
type Var = usize;

#[derive(Clone, Copy)]
enum Slot {
    Link(Var),
    /// Nothing known: a constant or the result of a call; a float if it stays so.
    Free,
    /// An integer literal: `i32` if it stays so, as in Rust.
    Integer,
    Known(Ty),
}

/// Whether a value occurs once per element (`Some(true)`) or once per row; `None` if only the callee knows.
type Lane = Option<bool>;

struct Value {
    row: Row,
    ty: Var,
    lane: Lane,
}

/// Rows under construction.
#[derive(Default)]
pub struct Rows {
    values: Vec<Value>,
    slots: Vec<Slot>,
}

impl Rows {
    fn add(&mut self, row: Row, ty: Var, lane: Lane) -> RowId {
        self.values.push(Value { row, ty, lane });
        self.values.len() - 1
    }

    fn slot(&mut self, slot: Slot) -> Var {
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn root(&self, mut var: Var) -> Var {
        while let Slot::Link(next) = self.slots[var] {
            var = next;
        }
        var
    }

    /// Makes two rows have one dtype. Where they differ the user's function has a type error, which rustc reports.
    pub fn unify(&mut self, a: RowId, b: RowId) {
        let (a, b) = (self.root(self.values[a].ty), self.root(self.values[b].ty));
        if a == b {
            return;
        }
        match (self.slots[a], self.slots[b]) {
            (_, Slot::Free) => self.slots[b] = Slot::Link(a),
            (Slot::Free, _) => self.slots[a] = Slot::Link(b),
            (_, Slot::Integer) => self.slots[b] = Slot::Link(a),
            (Slot::Integer, _) => self.slots[a] = Slot::Link(b),
            _ => {}
        }
    }

    /// Makes a row have a dtype.
    pub fn constrain(&mut self, row: RowId, ty: Ty) {
        let root = self.root(self.values[row].ty);
        if let Slot::Free | Slot::Integer = self.slots[root] {
            self.slots[root] = Slot::Known(ty);
        }
    }

    /// Whether the row is known to be an integer by now.
    pub fn is_integer(&self, row: RowId) -> bool {
        match self.slots[self.root(self.values[row].ty)] {
            Slot::Integer => true,
            Slot::Known(Ty::Fixed(name)) => name != "Bool",
            _ => false,
        }
    }

    /// The value of an integer literal.
    pub fn integer_literal(&self, row: RowId) -> Option<i64> {
        match self.values[row].row {
            Row::Int(value) => Some(value),
            _ => None,
        }
    }

    /// Whether the row occurs once per element, if that is known.
    pub fn lane(&self, row: RowId) -> Lane {
        self.values[row].lane
    }

    fn joined(&self, rows: &[RowId]) -> Lane {
        let lanes = || rows.iter().map(|r| self.values[*r].lane);
        if lanes().any(|lane| lane == Some(true)) {
            return Some(true);
        }
        if lanes().all(|lane| lane == Some(false)) { Some(false) } else { None }
    }

    /// A parameter.
    pub fn input(&mut self, index: usize, ty: Ty, lane: bool) -> RowId {
        let ty = self.slot(Slot::Known(ty));
        self.add(Row::Input(index), ty, Some(lane))
    }

    /// A float literal.
    pub fn float(&mut self, value: f64) -> RowId {
        let ty = self.slot(Slot::Known(Ty::Kernel));
        self.add(Row::Float(value), ty, Some(false))
    }

    /// An integer literal.
    pub fn integer(&mut self, value: i64) -> RowId {
        let ty = self.slot(Slot::Integer);
        self.add(Row::Int(value), ty, Some(false))
    }

    /// A bool literal.
    pub fn bool(&mut self, value: bool) -> RowId {
        let ty = self.slot(Slot::Known(Ty::Fixed("Bool")));
        self.add(Row::Bool(value), ty, Some(false))
    }

    /// A named constant.
    pub fn constant(&mut self, expression: proc_macro2::TokenStream) -> RowId {
        let ty = self.slot(Slot::Free);
        self.add(Row::Constant(expression), ty, Some(false))
    }

    /// One operand; the result has its dtype.
    pub fn unary(&mut self, op: &'static str, a: RowId) -> RowId {
        // A negated literal is a literal: `-1.0` reads as it was written.
        match self.values[a].row {
            Row::Float(value) if op == "Neg" => return self.float(-value),
            Row::Int(value) if op == "Neg" => {
                return self.add(Row::Int(value.wrapping_neg()), self.values[a].ty, Some(false));
            }
            _ => {}
        }
        self.add(Row::Unary(op, a), self.values[a].ty, self.values[a].lane)
    }

    /// A function of floats.
    pub fn function(&mut self, op: &'static str, a: RowId) -> RowId {
        self.constrain(a, Ty::Kernel);
        self.unary(op, a)
    }

    /// Two operands of one dtype, which is the result's.
    pub fn binary(&mut self, op: &'static str, a: RowId, b: RowId) -> RowId {
        self.unify(a, b);
        self.add(Row::Binary(op, a, b), self.values[a].ty, self.joined(&[a, b]))
    }

    /// Two operands of one dtype, giving a bool.
    pub fn compare(&mut self, op: &'static str, a: RowId, b: RowId) -> RowId {
        self.unify(a, b);
        let ty = self.slot(Slot::Known(Ty::Fixed("Bool")));
        self.add(Row::Compare(op, a, b), ty, self.joined(&[a, b]))
    }

    /// `if c { a } else { b }`
    pub fn select(&mut self, c: RowId, a: RowId, b: RowId) -> RowId {
        self.constrain(c, Ty::Fixed("Bool"));
        self.unify(a, b);
        self.add(Row::Select(c, a, b), self.values[a].ty, self.joined(&[c, a, b]))
    }

    /// `a · b + c`
    pub fn mul_add(&mut self, a: RowId, b: RowId, c: RowId) -> RowId {
        self.unify(a, b);
        self.unify(a, c);
        self.add(Row::MulAdd(a, b, c), self.values[a].ty, self.joined(&[a, b, c]))
    }

    /// `as`
    pub fn cast(&mut self, a: RowId, ty: Ty) -> RowId {
        let ty = self.slot(Slot::Known(ty));
        self.add(Row::Cast(a), ty, self.values[a].lane)
    }

    /// Along the row.
    pub fn reduce(&mut self, op: &'static str, a: RowId) -> RowId {
        self.add(Row::Reduce(op, a), self.values[a].ty, Some(false))
    }

    /// The number of elements of the row.
    pub fn length(&mut self) -> RowId {
        let ty = self.slot(Slot::Known(Ty::Kernel));
        self.add(Row::Length, ty, Some(false))
    }

    /// The operand, with no derivative.
    pub fn detach(&mut self, a: RowId) -> RowId {
        self.add(Row::Detach(a), self.values[a].ty, self.values[a].lane)
    }

    /// One output of another kernel.
    pub fn call(&mut self, kernel: syn::Path, output: u16, args: Vec<RowId>, in_row_kernel: bool) -> RowId {
        let ty = self.slot(Slot::Free);
        let lane = if in_row_kernel && self.joined(&args) != Some(false) { None } else { self.joined(&args) };
        self.add(Row::Call { kernel, output, args }, ty, lane)
    }

    /// The rows that the outputs need, and all parameters, renumbered, with their dtypes.
    pub fn finish(mut self, outputs: &[RowId]) -> (Vec<(Row, Ty)>, Vec<RowId>) {
        let mut needed: Vec<bool> = self.values.iter().map(|v| matches!(v.row, Row::Input(_))).collect();
        for output in outputs {
            needed[*output] = true;
        }
        for id in (0..self.values.len()).rev() {
            if needed[id] {
                for operand in self.values[id].row.operands_mut() {
                    needed[*operand] = true;
                }
            }
        }
        let types: Vec<Ty> = self.values.iter().map(|v| self.resolved(v.ty)).collect();
        let mut renumbered = vec![0; needed.len()];
        let mut rows = Vec::new();
        for (id, value) in self.values.iter_mut().enumerate() {
            if needed[id] {
                for operand in value.row.operands_mut() {
                    *operand = renumbered[*operand];
                }
                renumbered[id] = rows.len();
                rows.push((value.row.clone(), types[id]));
            }
        }
        (rows, outputs.iter().map(|o| renumbered[*o]).collect())
    }

    fn resolved(&self, var: Var) -> Ty {
        match self.slots[self.root(var)] {
            Slot::Known(ty) => ty,
            Slot::Integer => Ty::Fixed("I32"),
            Slot::Free | Slot::Link(_) => Ty::Kernel,
        }
    }
}
