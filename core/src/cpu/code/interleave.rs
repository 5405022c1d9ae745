//! Several registers of a row at once, their operations taking turns: a formula is one long chain, and a processor
//! looks only so far ahead for other work. Owns how many, and the order.

use super::form::Bank;
use super::record::{Access, Id, Kind, Micro};

/// Copies of a body that take turns, at most; those of sixteen elements are no more.
pub const COPIES: usize = 4;

/// A body for several registers.
pub struct Interleaved {
    /// Its operations.
    pub micros: Vec<Micro>,
    /// For how many registers, of sixteen elements or a multiple of them.
    pub copies: usize,
    /// How many vectors are alive at once, at most, without those that all copies share or that are loaded.
    pub alive: usize,
}

/// The body for up to `most` registers that take turns. Those of sixteen elements that do not fit beside each other
/// follow each other.
pub fn interleave(micros: &[Micro], bank: &Bank, most: usize) -> Interleaved {
    let parts = bank.parts();
    let alive = alive(micros, bank).max(1);
    let fits =
        |turns: &usize| turns * alive <= bank.alive && (turns.is_multiple_of(parts) || parts.is_multiple_of(*turns));
    let turns = (1..=most).rev().find(fits).unwrap_or(1);
    let copies = turns.max(parts);
    let mut out: Vec<Micro> = Vec::with_capacity(micros.len() * copies);
    let mut ids = vec![[0; COPIES]; micros.len()];
    for first in (0..copies).step_by(turns) {
        for (number, &micro) in micros.iter().enumerate() {
            let is_shared = is_shared(&micro);
            let turns = match is_shared {
                true if first > 0 => continue,
                true => first..first + 1,
                false => first..first + turns,
            };
            for copy in turns {
                let micro = match micro {
                    Micro::Load(slot, access, format) => Micro::Load(slot, moved(access, copy), format),
                    Micro::Store(slot, access, format, a) => Micro::Store(slot, moved(access, copy), format, a),
                    Micro::Fetch(slot, access) => Micro::Fetch(slot, moved(access, copy)),
                    Micro::Fold(fold, _, a) => Micro::Fold(fold, copy as u8, a),
                    other => other,
                };
                let id = out.len() as Id;
                out.push(micro.map(|id| ids[id as usize][copy]));
                match is_shared {
                    true => ids[number].fill(id),
                    false => ids[number][copy] = id,
                }
            }
        }
    }
    Interleaved { micros: out, copies, alive: turns * alive }
}

/// The access of the register after `copy` others.
fn moved(access: Access, copy: usize) -> Access {
    match access {
        Access::Lane(_) => Access::Lane(copy as u8),
        Access::Column(_) => Access::Column(copy as u8),
        other => other,
    }
}

/// Whether one serves all registers of a row.
fn is_shared(micro: &Micro) -> bool {
    matches!(micro, Micro::Constant(_) | Micro::Load(_, Access::Row | Access::Fixed, _))
}

/// The most vector registers that hold what is alive at once, without what all copies share and what can be loaded
/// again.
fn alive(micros: &[Micro], bank: &Bank) -> usize {
    let mut last = vec![0; micros.len()];
    for (index, micro) in micros.iter().enumerate() {
        micro.operands().into_iter().flatten().for_each(|id| last[id as usize] = index);
    }
    let again = |id: usize| is_shared(&micros[id]) || matches!(micros[id], Micro::Load(..));
    let is_vector = |id: usize| micros[id].kind() == Kind::Vector || !bank.has_masks();
    let counts = |id: usize| is_vector(id) && !again(id) && micros[id].has_result();
    let (mut alive, mut most) = (0usize, 0);
    for (index, micro) in micros.iter().enumerate() {
        alive += usize::from(counts(index) && last[index] > index);
        most = most.max(alive);
        let mut ended: Vec<Id> =
            micro.operands().into_iter().flatten().filter(|&id| last[id as usize] == index).collect();
        ended.sort_unstable();
        ended.dedup();
        alive -= ended.iter().filter(|&&id| counts(id as usize)).count();
    }
    most
}
