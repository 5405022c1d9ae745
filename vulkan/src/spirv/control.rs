//! Structured control flow of the assembler: branches that merge, loops that carry values.

use rspirv::dr::{Block, Instruction, Operand};
use rspirv::spirv::{LoopControl, Op, SelectionControl};

use super::asm::{Asm, Id, Ty};

impl Asm {
    /// Opens the first block.
    pub(super) fn begin(&mut self) {
        let label = self.id();
        self.block(label);
    }

    fn block(&mut self, label: Id) {
        let label = Some(Instruction::new(Op::Label, None, Some(label), vec![]));
        self.blocks.push(Block { label, instructions: Vec::new() });
    }

    /// The label of the block that instructions go to.
    fn current(&self) -> Id {
        let label = self.blocks.last().and_then(|block| block.label.as_ref());
        label.and_then(|label| label.result_id).unwrap_or(0)
    }

    fn branch(&mut self, to: Id) {
        self.emit_void(Op::Branch, vec![Operand::IdRef(to)]);
    }

    fn branch_if(&mut self, condition: Id, yes: Id, no: Id) {
        self.emit_void(Op::BranchConditional, [condition, yes, no].map(Operand::IdRef).to_vec());
    }

    fn merges_at(&mut self, merge: Id) {
        let control = Operand::SelectionControl(SelectionControl::NONE);
        self.emit_void(Op::SelectionMerge, vec![Operand::IdRef(merge), control]);
    }

    /// Ends the invocation if `condition`.
    pub(super) fn return_if(&mut self, condition: Id) {
        let (leave, stay) = (self.id(), self.id());
        self.merges_at(stay);
        self.branch_if(condition, leave, stay);
        self.block(leave);
        self.emit_void(Op::Return, vec![]);
        self.block(stay);
    }

    /// `if condition { body }`
    pub(super) fn when(&mut self, condition: Id, body: impl FnOnce(&mut Asm)) {
        let (yes, merge) = (self.id(), self.id());
        self.merges_at(merge);
        self.branch_if(condition, yes, merge);
        self.block(yes);
        body(self);
        self.branch(merge);
        self.block(merge);
    }

    /// `if condition { yes } else { no }`, each giving one value per entry of `types`.
    pub(super) fn either(
        &mut self,
        condition: Id,
        types: &[Ty],
        yes: impl FnOnce(&mut Asm) -> Vec<Id>,
        no: impl FnOnce(&mut Asm) -> Vec<Id>,
    ) -> Vec<Id> {
        let (then, otherwise, merge) = (self.id(), self.id(), self.id());
        self.merges_at(merge);
        self.branch_if(condition, then, otherwise);
        self.block(then);
        let a = yes(self);
        let from_a = self.current();
        self.branch(merge);
        self.block(otherwise);
        let b = no(self);
        let from_b = self.current();
        self.branch(merge);
        self.block(merge);
        let phi = |(&ty, (a, b)): (&Ty, (Id, Id))| {
            let ty = self.ty(ty);
            self.emit(Op::Phi, ty, [a, from_a, b, from_b].map(Operand::IdRef).to_vec())
        };
        types.iter().zip(a.into_iter().zip(b)).map(phi).collect()
    }

    /// A loop that carries values: begins with `initial`, goes on while `condition` of them, and `body` gives the next
    /// ones. Gives the last ones.
    pub(super) fn repeat(
        &mut self,
        initial: &[(Ty, Id)],
        condition: impl FnOnce(&mut Asm, &[Id]) -> Id,
        body: impl FnOnce(&mut Asm, &[Id]) -> Vec<Id>,
    ) -> Vec<Id> {
        let [header, inside, latch, merge] = [(); 4].map(|()| self.id());
        let before = self.current();
        self.branch(header);
        self.block(header);
        let at = self.blocks.len() - 1;
        let phi = |&(ty, value): &(Ty, Id)| {
            let ty = self.ty(ty);
            self.emit(Op::Phi, ty, [value, before].map(Operand::IdRef).to_vec())
        };
        let carried: Vec<Id> = initial.iter().map(phi).collect();
        let goes_on = condition(self, &carried);
        let control = Operand::LoopControl(LoopControl::NONE);
        self.emit_void(Op::LoopMerge, vec![Operand::IdRef(merge), Operand::IdRef(latch), control]);
        self.branch_if(goes_on, inside, merge);
        self.block(inside);
        let next = body(self, &carried);
        self.branch(latch);
        self.block(latch);
        self.branch(header);
        for (phi, value) in self.blocks[at].instructions.iter_mut().zip(next) {
            phi.operands.extend([value, latch].map(Operand::IdRef));
        }
        self.block(merge);
        carried
    }

    /// `for i in (start..end).step_by(step)` over u32 or u64 numbers compared without sign, carrying values.
    pub(super) fn count(
        &mut self,
        ty: Ty,
        [start, end, step]: [Id; 3],
        initial: &[(Ty, Id)],
        body: impl FnOnce(&mut Asm, Id, &[Id]) -> Vec<Id>,
    ) -> Vec<Id> {
        let all: Vec<(Ty, Id)> = [(ty, start)].into_iter().chain(initial.iter().copied()).collect();
        let mut last = self.repeat(
            &all,
            |asm, carried| asm.op(Op::ULessThan, Ty::Bool, &[carried[0], end]),
            |asm, carried| {
                let mut next = body(asm, carried[0], &carried[1..]);
                next.insert(0, asm.op(Op::IAdd, ty, &[carried[0], step]));
                next
            },
        );
        last.remove(0);
        last
    }
}
