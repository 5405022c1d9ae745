//! What profiles call a step: the operations that are fused in it, the outermost first, as `gelu∘add`.
//! Knows no kernels' contents.

use std::collections::{BTreeMap, BTreeSet};

use super::fuse::{Draft, GroupDraft, Step};
use super::world::{Id, World};

/// Operations that a name lists, at most.
const NAMED: usize = 6;

/// The names of a compilation's steps.
pub(super) struct Labels<'w> {
    world: &'w World,
    /// The node that each recorded node became: the first of its origin.
    recorded: BTreeMap<u32, Id>,
}

impl<'w> Labels<'w> {
    pub fn new(world: &'w World) -> Labels<'w> {
        let mut recorded = BTreeMap::new();
        for (i, &origin) in world.origin.iter().enumerate() {
            recorded.entry(origin).or_insert(Id(i as u32));
        }
        Labels { world, recorded }
    }

    /// A step's name and the canonical numbers of the nodes that it computes.
    pub fn of(&self, step: &Step) -> (String, Box<[u32]>) {
        let groups = step.prologue().iter().map(|(_, group)| group).chain(step.groups());
        let parts_of = |group: &GroupDraft| group.expr.parts.iter().copied().collect::<BTreeSet<Id>>();
        let parts: BTreeSet<Id> = groups.flat_map(parts_of).collect();
        let parts = if parts.is_empty() { BTreeSet::from([step.node]) } else { parts };
        let origins: BTreeSet<u32> = parts.iter().map(|id| self.world.origin[id.index()]).collect();
        // A batch is named after its first group.
        let (first, times) = match &step.draft {
            Draft::Groups(groups) => (groups.first().map(parts_of), format!(" ×{}", groups.len())),
            _ => (None, String::new()),
        };
        let name = self.joined(&first.filter(|first| !first.is_empty()).unwrap_or(parts)) + &times;
        (name, origins.into_iter().collect())
    }

    /// Nodes come after what they read, so the largest is the outermost.
    fn joined(&self, parts: &BTreeSet<Id>) -> String {
        let mut names: Vec<(String, usize)> = Vec::new();
        for &id in parts.iter().rev() {
            let name = self.name(id);
            match names.last_mut() {
                Some((last, times)) if *last == name => *times += 1,
                _ => names.push((name, 1)),
            }
        }
        let left: usize = names.iter().skip(NAMED).map(|(_, times)| times).sum();
        let shown = names.iter().take(NAMED).map(|(name, times)| match times {
            1 => name.clone(),
            n => format!("{name}^{n}"),
        });
        let mut text = shown.collect::<Vec<_>>().join("∘");
        if left > 0 {
            text += &format!("∘…{left} more");
        }
        text
    }

    /// An operation's name; a derivative's is that of what it is the derivative of, with a prime.
    fn name(&self, id: Id) -> String {
        // Without its arguments.
        let short = |id: Id| {
            let name = self.world.op[id.index()].name();
            name.split_once(" [").map_or_else(|| name.to_string(), |(name, _)| name.to_owned())
        };
        let name = short(id);
        let recorded = self.recorded.get(&self.world.origin[id.index()]);
        match recorded {
            Some(&of) if name == "vjp" && of != id => format!("{}′", short(of)),
            _ => name,
        }
    }
}
