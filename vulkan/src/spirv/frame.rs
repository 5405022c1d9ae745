//! One pass over a space while it is emitted: the accesses opened, and the values known so far at the current outer
//! index. Values are computed as seldom as they change. Knows nothing of how a pass shares out its work.

use tapeflow_ir::{Op, Reduce, ScalarFn, V};

use super::asm::{Asm, Id, Ty};
use super::function::{Fold, Level, Values, levels, needed, phases};
use super::space::{Access, Cursor, Kind, Space};

/// A function of what is read at an index, and the space of the index.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) function: ScalarFn,
    /// One per parameter.
    pub(super) inputs: Vec<Access>,
    pub(super) dims: Vec<usize>,
    /// Of a row, for `Op::Length`.
    pub(super) length: usize,
}

/// A value and where it goes.
pub(super) type Store = (V, Access);

impl Source {
    /// Parameters that `wanted` do not need become constants, so that their layouts keep no axes apart.
    pub(super) fn pruned(mut self, wanted: &[V]) -> Source {
        let needed = needed(&self.function, wanted, |_| false);
        let mut used = vec![false; self.inputs.len()];
        for ((op, _), _) in self.function.values.iter().zip(needed).filter(|(_, needed)| *needed) {
            if let Op::Input(index) = op {
                used[*index as usize] = true;
            }
        }
        for (input, _) in self.inputs.iter_mut().zip(used).filter(|(_, used)| !used) {
            input.kind = Kind::Iota;
            input.layout.offset = 0;
            input.layout.shifts.clear();
            input.layout.strides.iter_mut().for_each(|stride| *stride = 0);
        }
        self
    }

    /// The space of this source and `stores`, the first `split` axes outer ones.
    pub(super) fn space(&self, split: usize, stores: &[&Store]) -> Space {
        let accesses: Vec<&Access> = self.inputs.iter().chain(stores.iter().map(|(_, access)| access)).collect();
        Space::new(&self.dims, split, &accesses)
    }
}

/// See the file's head.
#[derive(Clone)]
pub(super) struct Frame<'f> {
    function: &'f ScalarFn,
    space: &'f Space,
    cursors: Vec<Cursor>,
    inputs: usize,
    pub(super) values: Values<'f>,
    levels: Vec<Level>,
    phases: Vec<usize>,
    /// Unknown to the device's compiler, where that matters.
    zeros: Option<[Id; 2]>,
}

impl<'f> Frame<'f> {
    /// Opens all accesses; outside of branches and loops. `space` is the source's with these `stores`.
    pub(super) fn open(asm: &mut Asm, source: &'f Source, space: &'f Space, stores: &[&Store]) -> Frame<'f> {
        let accesses = source.inputs.iter().chain(stores.iter().map(|(_, access)| access));
        let cursors = accesses.enumerate().map(|(number, access)| Cursor::open(asm, number, access)).collect();
        let inputs: Vec<Level> = (0..source.inputs.len()).map(|number| space.level(number)).collect();
        Frame {
            function: &source.function,
            space,
            cursors,
            inputs: inputs.len(),
            values: Values::new(&source.function, source.length),
            levels: levels(&source.function, &inputs),
            phases: phases(&source.function),
            zeros: asm.target.is_cpu.then(|| asm.unknown_zeros()),
        }
    }

    /// A value that is known, to be folded. lavapipe drops additions of what its compiler finds to be 0, and −0 + 0 is
    /// not −0: such values are hidden from it.
    pub(super) fn folded(&self, asm: &mut Asm, v: V, fold: Fold) -> Id {
        let value = self.values.get(v);
        let is_read = matches!(self.function.op(v), Op::Input(_));
        let sums_floats = fold.op == Reduce::Sum && fold.dtype.is_float();
        match (sums_floats && !is_read, self.zeros) {
            (true, Some(zeros)) => asm.opaque(Ty::of(fold.dtype), value, zeros),
            _ => value,
        }
    }

    /// Evaluates what `wanted` need that changes no oftener than `level` and lies no deeper than `phase`.
    pub(super) fn hoist(&mut self, asm: &mut Asm, wanted: &[V], level: Level, phase: usize) {
        let needed = needed(self.function, wanted, |v| self.values.is_known(v));
        let early: Vec<V> = (0..needed.len())
            .filter(|&index| needed[index] && self.levels[index] <= level && self.phases[index] <= phase)
            .map(|index| V(index as u32))
            .collect();
        self.evaluate(asm, &early, &[]);
    }

    fn evaluate(&mut self, asm: &mut Asm, wanted: &[V], inner: &[Id]) {
        let (cursors, space) = (&self.cursors, self.space);
        self.values.evaluate(asm, wanted, &mut |asm, input| cursors[input].read(asm, space, inner));
    }

    /// At outer element number `at`; what is known so far stays known.
    pub(super) fn outer(&self, asm: &mut Asm, at: Id) -> Frame<'f> {
        let index = self.space.outer_index(asm, at);
        let cursors = self.cursors.iter().map(|cursor| cursor.at(asm, self.space, &index)).collect();
        Frame { cursors, ..self.clone() }
    }

    /// At inner element number `at`: evaluates `wanted` and gives the inner index.
    pub(super) fn inner(&self, asm: &mut Asm, at: Id, wanted: &[V]) -> (Frame<'f>, Vec<Id>) {
        let index = self.space.inner_index(asm, at);
        let mut frame = self.clone();
        frame.evaluate(asm, wanted, &index);
        (frame, index)
    }

    /// Writes store number `store` at an inner index.
    pub(super) fn write(&self, asm: &mut Asm, store: usize, v: V, inner: &[Id]) {
        self.cursors[self.inputs + store].write(asm, self.space, inner, self.values.get(v));
    }
}
