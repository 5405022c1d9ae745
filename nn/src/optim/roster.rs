//! What every optimizer has: its parameters in order, their groups, their state, and the transaction of a step.
//!
//! Knows no update rule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;
use tapeflow_core::{
    DType, Device, Gradients, HostCell, Parameter, Replay, Shape, Slot, Tensor, commit, is_capturing, no_grad,
    on_replay,
};

use crate::checkpoint::describe;
use crate::error::{Error, Result};
use crate::module::{Buffer, Module, ModuleExt, Pattern};

/// Settings of some parameters that differ from the optimizer's own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Group {
    weight_decay: Option<f64>,
    learning_rate_scale: Option<f64>,
}

impl Group {
    /// Another weight decay.
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = Some(weight_decay);
        self
    }

    /// The learning rate times this factor.
    pub fn learning_rate_scale(mut self, scale: f64) -> Self {
        self.learning_rate_scale = Some(scale);
        self
    }
}

/// The settings one parameter's update has in one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// The parameter's own steps, this one included, from 1.
    pub step: u64,
}

/// Steps taken, shared with the hooks of captured steps.
#[derive(Clone, Debug, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn set(&self, steps: u64) {
        self.0.store(steps, Relaxed);
    }

    fn advance(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The tensors of state of one parameter, in the order of their names.
pub(super) type State<T> = SmallVec<[T; 2]>;

/// A parameter with its state.
#[derive(Debug)]
struct Member {
    path: String,
    parameter: Parameter,
    group: Group,
    steps: Counter,
    /// Made at its first update.
    state: Option<State<Buffer>>,
}

/// What a rule is given for one parameter: all of one shape but the scalars, which have none.
pub(super) struct Present<'a, const S: usize> {
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    pub state: &'a [Tensor],
    pub scalars: &'a [Tensor; S],
}

/// The parameters of an optimizer.
#[derive(Debug)]
pub(super) struct Roster {
    members: Vec<Member>,
    /// The names of the tensors of state each parameter has.
    pub names: &'static [&'static str],
    pub learning_rate: HostCell,
    pub weight_decay: f64,
    steps: Counter,
    /// A mistake made while it was being set up; it comes out at the first step.
    mistake: Option<Error>,
}

impl Roster {
    pub fn new(
        module: &(impl Module + ?Sized),
        names: &'static [&'static str],
        learning_rate: f64,
        weight_decay: f64,
    ) -> Self {
        module.stamp_paths();
        let member = |(path, parameter)| Member {
            path,
            parameter,
            group: Group::default(),
            steps: Counter::default(),
            state: None,
        };
        let members = module.named_parameters().into_iter().map(member).collect();
        let learning_rate = HostCell::new(learning_rate);
        Roster { members, names, learning_rate, weight_decay, steps: Counter::default(), mistake: None }
    }

    /// Changes the settings of the parameters whose path matches.
    pub fn group(&mut self, pattern: &str, change: impl Fn(Group) -> Group) {
        let glob = Pattern::new(pattern);
        if !self.group_where(|path, _| glob.matches(path), change) {
            let paths = self.members.iter().map(|m| m.path.clone()).collect();
            self.mistake.get_or_insert(Error::NoMatch { pattern: pattern.to_owned(), paths });
        }
    }

    /// Changes the settings of the parameters that are chosen; returns whether there are any.
    pub fn group_where(&mut self, chosen: impl Fn(&str, &[usize]) -> bool, change: impl Fn(Group) -> Group) -> bool {
        let mut any = false;
        for member in &mut self.members {
            if chosen(&member.path, member.parameter.tensor().shape()) {
                member.group = change(member.group);
                any = true;
            }
        }
        any
    }

    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |member: &Member| -> Vec<(String, Tensor)> {
            let Some(state) = member.state.as_ref().filter(|_| member.steps.get() > 0) else { return Vec::new() };
            self.names.iter().zip(state).map(|(name, b)| (format!("{}.{name}", member.path), b.tensor())).collect()
        };
        self.members.iter().flat_map(named).collect()
    }

    pub fn state_dict(&self) -> Vec<(String, Tensor)> {
        let count = |name: String, counter: &Counter| (name, Tensor::scalar(counter.get() as i64));
        let updated = self.members.iter().filter(|m| m.steps.get() > 0);
        let counters = updated.map(|m| count(format!("{}.{STEP}", m.path), &m.steps));
        let all = std::iter::once(count(STEPS.to_owned(), &self.steps));
        self.state().into_iter().chain(counters).chain(all).collect()
    }

    pub fn load_state_dict(&mut self, state: Vec<(String, Tensor)>, source_name: &str) -> Result<()> {
        let mut fit = Fit { given: state.into_iter().collect(), missing: Vec::new(), unlike: Vec::new() };
        let steps = fit.count(STEPS.to_owned())?;
        let mut loaded: Vec<Option<(u64, State<Tensor>)>> = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let path = |name: &str| format!("{}.{name}", member.path);
            // A parameter that had no gradient so far has no state.
            let begun = self.names.iter().chain([&STEP]).any(|name| fit.given.contains_key(&path(name)));
            if !begun {
                loaded.push(None);
                continue;
            }
            let like = member.parameter.tensor();
            let state = self.names.iter().filter_map(|name| fit.take(path(name), state_dtype(&like), like.shape()));
            let state: State<Tensor> = state.map(|t| t.to(like.device())).collect();
            loaded.push(Some((fit.count(path(STEP))?, state)));
        }
        fit.check(source_name)?;
        let all: Vec<&Tensor> = loaded.iter().flatten().flat_map(|(_, state)| state).collect();
        Tensor::realize_all(&all)?;
        let cells = |state: State<Tensor>| state.into_iter().map(Buffer::new).collect::<Result<State<Buffer>>>();
        let loaded = loaded.into_iter().map(|one| one.map(|(n, state)| Ok((n, cells(state)?))).transpose());
        let loaded: Vec<Option<(u64, State<Buffer>)>> = loaded.collect::<Result<_>>()?;
        for (member, loaded) in self.members.iter_mut().zip(loaded) {
            let (count, state) = loaded.map_or((0, None), |(count, state)| (count, Some(state)));
            member.steps.set(count);
            member.state = state;
        }
        self.steps.set(steps);
        Ok(())
    }

    /// Updates every parameter that has a gradient, in one transaction.
    ///
    /// `scalars` computes a rule's host numbers once for all parameters of one group. Groups are told apart by what
    /// they were given and never by the numbers that come of it (at a learning rate of 0 many agree), so that the
    /// program stays the same whatever the numbers are.
    pub fn step<const S: usize>(
        &mut self,
        gradients: Gradients,
        scalars: impl Fn(&Settings) -> [f64; S] + Clone + Send + 'static,
        rule: impl Fn(Present<'_, S>) -> (Tensor, State<Tensor>),
    ) -> Result<()> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        let mut shared: Vec<(Alike, [Tensor; S])> = Vec::new();
        let mut updates: Vec<(&Slot, Tensor)> = Vec::new();
        let mut updated = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            let Some(gradient) = gradients.get(&member.parameter) else { continue };
            let parameter = member.parameter.tensor();
            if parameter.dtype().is_half() {
                return Err(Error::Configuration(format!(
                    "`{}` is {}, and updates would be lost in rounding: keep parameters f32 and record with Precision",
                    member.path,
                    parameter.dtype()
                )));
            }
            let (dtype, device) = (parameter.dtype(), parameter.device());
            let source = SettingsSource {
                learning_rate: self.learning_rate.clone(),
                scale: member.group.learning_rate_scale.unwrap_or(1.0),
                weight_decay: member.group.weight_decay.unwrap_or(self.weight_decay),
                steps: member.steps.clone(),
            };
            let alike = (member.group, member.steps.get(), dtype, device);
            let place = match shared.iter().position(|(other, _)| *other == alike) {
                Some(place) => place,
                None => {
                    let values = scalars(&source.now());
                    let values = device.scope(|| match is_capturing() {
                        false => values.map(|value| Tensor::host(value, dtype)),
                        true => cells_of(values, source, scalars.clone()).map(|cell| Tensor::host_cell(&cell, dtype)),
                    });
                    shared.push((alike, values));
                    shared.len() - 1
                }
            };
            if member.state.is_none() {
                let cells = self.names.iter().map(|_| Buffer::new(zeros(&parameter)));
                member.state = Some(cells.collect::<Result<_>>()?);
            }
            let cells = member.state.as_deref().unwrap_or_default();
            let state: State<Tensor> = cells.iter().map(Buffer::tensor).collect();
            let present = Present { parameter: &parameter, gradient, state: &state, scalars: &shared[place].1 };
            let (new, new_state) = no_grad(|| rule(present));
            updates.push((member.parameter.slot(), new));
            updates.extend(cells.iter().map(Buffer::slot).zip(new_state));
            updated.push(index);
        }
        // What the updates were computed from may be given away by the program only if nobody else holds it.
        drop((gradients, shared));
        commit(&updates)?;
        drop(updates);
        let mut counters = vec![self.steps.clone()];
        counters.extend(updated.into_iter().map(|index| self.members[index].steps.clone()));
        counters.iter().for_each(Counter::advance);
        if is_capturing() {
            on_replay(move |when| {
                if when == Replay::Done {
                    counters.iter().for_each(Counter::advance);
                }
            });
        }
        Ok(())
    }
}

/// The names of the counters in a state: of a parameter's steps, and of all.
const STEP: &str = "step";
const STEPS: &str = "steps";

/// A state that is being taken apart, and what does not fit.
struct Fit {
    given: BTreeMap<String, Tensor>,
    missing: Vec<String>,
    unlike: Vec<String>,
}

impl Fit {
    fn take(&mut self, name: String, dtype: DType, shape: &Shape) -> Option<Tensor> {
        let Some(found) = self.given.remove(&name) else {
            self.missing.push(name);
            return None;
        };
        if found.dtype() == dtype && found.shape() == shape {
            return Some(found);
        }
        self.unlike.push(format!("`{name}` is {} and should be {dtype} {shape}", describe(&found)));
        None
    }

    fn count(&mut self, name: String) -> Result<u64> {
        let found = self.take(name, DType::I64, &Shape::from(())).map(|t| t.item::<i64>()).transpose()?;
        Ok(found.map_or(0, |n| n.max(0) as u64))
    }

    fn check(self, source_name: &str) -> Result<()> {
        let Fit { given, missing, unlike } = self;
        let unexpected: Vec<String> = given.into_keys().collect();
        if missing.is_empty() && unexpected.is_empty() && unlike.is_empty() {
            return Ok(());
        }
        Err(Error::CheckpointMismatch { source_name: source_name.to_owned(), missing, unexpected, unlike })
    }
}

/// The dtype of a parameter's state.
fn state_dtype(parameter: &Tensor) -> DType {
    if parameter.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

/// What the settings of a group are made of, wherever its numbers stand at the time.
struct SettingsSource {
    learning_rate: HostCell,
    scale: f64,
    weight_decay: f64,
    steps: Counter,
}

impl SettingsSource {
    fn now(&self) -> Settings {
        let learning_rate = self.learning_rate.get() * self.scale;
        Settings { learning_rate, weight_decay: self.weight_decay, step: self.steps.get() + 1 }
    }
}

/// A rule's numbers as cells, which every replay of the step being captured sets to what they are then.
fn cells_of<const S: usize>(
    values: [f64; S],
    source: SettingsSource,
    scalars: impl Fn(&Settings) -> [f64; S] + Send + 'static,
) -> [HostCell; S] {
    let cells = values.map(HostCell::new);
    let kept = cells.clone();
    on_replay(move |when| {
        if when == Replay::Before {
            kept.iter().zip(scalars(&source.now())).for_each(|(cell, value)| cell.set(value));
        }
    });
    cells
}

/// What members that share a rule's host numbers have in common.
type Alike = (Group, u64, DType, Device);

/// Zeros in memory of their own: what every later step finds there too, so that the first step's program is theirs.
fn zeros(like: &Tensor) -> Tensor {
    like.device().scope(|| match like.dtype() {
        DType::F64 => Tensor::from_vec(vec![0f64; like.numel()], like.shape()),
        _ => Tensor::from_vec(vec![0f32; like.numel()], like.shape()),
    })
}

/// The builder methods and the trait that all optimizers share; each holds its `Roster` as `roster`.
macro_rules! shared_methods {
    ($optimizer:ident) => {
        impl $optimizer {
            /// With this learning rate.
            pub fn learning_rate(self, learning_rate: f64) -> Self {
                self.roster.learning_rate.set(learning_rate);
                self
            }

            /// With this weight decay, where a group has no other.
            pub fn weight_decay(mut self, weight_decay: f64) -> Self {
                self.roster.weight_decay = weight_decay;
                self
            }

            /// Changes the settings of the parameters whose path matches a pattern such as `*.bias`; later groups win.
            ///
            /// A pattern that matches nothing is an error of the first step.
            pub fn group(
                mut self,
                pattern: &str,
                change: impl Fn($crate::optim::Group) -> $crate::optim::Group,
            ) -> Self {
                self.roster.group(pattern, change);
                self
            }

            /// Changes the settings of the parameters chosen by path and shape; later groups win.
            pub fn group_where(
                mut self,
                chosen: impl Fn(&str, &[usize]) -> bool,
                change: impl Fn($crate::optim::Group) -> $crate::optim::Group,
            ) -> Self {
                self.roster.group_where(chosen, change);
                self
            }
        }

        impl $crate::optim::Optimizer for $optimizer {
            fn step(&mut self, gradients: tapeflow_core::Gradients) -> $crate::error::Result<()> {
                self.take_step(gradients)
            }

            fn learning_rate(&self) -> f64 {
                self.roster.learning_rate.get()
            }

            fn set_learning_rate(&mut self, learning_rate: f64) {
                self.roster.learning_rate.set(learning_rate);
            }

            fn state(&self) -> Vec<(String, tapeflow_core::Tensor)> {
                self.roster.state()
            }

            fn steps(&self) -> u64 {
                self.roster.steps()
            }

            fn state_dict(&self) -> Vec<(String, tapeflow_core::Tensor)> {
                self.roster.state_dict()
            }

            fn load_state_dict(
                &mut self,
                state: Vec<(String, tapeflow_core::Tensor)>,
                source_name: &str,
            ) -> $crate::error::Result<()> {
                self.roster.load_state_dict(state, source_name)
            }
        }
    };
}
pub(super) use shared_methods;
