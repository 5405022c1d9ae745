//! Several registers of a row at once, their operations taking turns: a formula is one long chain, and a processor
//! looks only so far ahead for other work. Owns how many, and the order.

use super::record::{Access, Id, Kind, Micro};

/// Registers taken at once, at most.
const MOST: usize = 4;
/// Values that may be alive at once.
const ALIVE: usize = 28;

/// A body for several registers at once.
pub struct Interleaved {
    /// Its operations.
    pub micros: Vec<Micro>,
    /// For how many registers.
    pub copies: usize,
    /// How many vectors are alive at once, at most, without those that all copies share or that are loaded.
    pub alive: usize,
}

/// The body for several registers.
pub fn interleave(micros: &[Micro]) -> Interleaved {
    let alive = alive(micros).max(1);
    let copies = (1..=MOST).rev().find(|copies| copies * alive <= ALIVE).unwrap_or(1);
    let mut out: Vec<Micro> = Vec::with_capacity(micros.len() * copies);
    let mut ids: Vec<Vec<Id>> = Vec::with_capacity(micros.len());
    for &micro in micros {
        let copies = if is_shared(&micro) { 1 } else { copies };
        let first = out.len() as Id;
        for copy in 0..copies {
            let micro = match micro {
                Micro::Load(slot, access, format) => Micro::Load(slot, moved(access, copy), format),
                Micro::Store(slot, access, format, a) => Micro::Store(slot, moved(access, copy), format, a),
                Micro::Fetch(slot, access) => Micro::Fetch(slot, moved(access, copy)),
                Micro::Fold(fold, _, a) => Micro::Fold(fold, copy as u8, a),
                other => other,
            };
            out.push(micro.map(|id| {
                let copies: &[Id] = &ids[id as usize];
                copies[copy.min(copies.len() - 1)]
            }));
        }
        ids.push((first..out.len() as Id).collect());
    }
    Interleaved { micros: out, copies, alive: copies * alive }
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

/// The most vectors alive at once, without those that all copies share and those that can be loaded again.
fn alive(micros: &[Micro]) -> usize {
    let mut last = vec![0; micros.len()];
    for (index, micro) in micros.iter().enumerate() {
        micro.operands().into_iter().flatten().for_each(|id| last[id as usize] = index);
    }
    let again = |id: usize| is_shared(&micros[id]) || matches!(micros[id], Micro::Load(..));
    let counts = |id: usize| micros[id].kind() == Kind::Vector && !again(id) && micros[id].has_result();
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
