//! What can be asked of every module: its parameters by path, freezing, training or evaluating, its state.

use std::collections::HashSet;
use std::path::Path;

use tapeflow_core::{DType, Device, Parameter, Slot, Tensor, no_grad, with_training};

use super::summary::{Role, Summary};
use super::{Buffer, Module, Pattern, Visitor};
use crate::checkpoint;
use crate::error::{Error, Result};

/// A parameter or buffer of a module: a leaf of the tree.
#[derive(Clone, Debug)]
pub enum Leaf {
    /// One that is learned, unless frozen.
    Parameter(Parameter),
    /// One that is not.
    Buffer(Buffer),
}

impl Leaf {
    /// The place that holds its version.
    pub fn slot(&self) -> &Slot {
        match self {
            Leaf::Parameter(p) => p.slot(),
            Leaf::Buffer(b) => b.slot(),
        }
    }

    /// The present version.
    pub fn tensor(&self) -> Tensor {
        self.slot().tensor()
    }

    pub(super) fn role(&self) -> Role {
        match self {
            Leaf::Buffer(_) => Role::Buffer,
            Leaf::Parameter(p) if p.is_trainable() => Role::Learned,
            Leaf::Parameter(_) => Role::Frozen,
        }
    }
}

/// Where or as what the parameters of a module shall be; see [`ModuleExt::to`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// Of this float dtype.
    DType(DType),
    /// On this device.
    Device(Device),
}

impl From<DType> for Place {
    fn from(dtype: DType) -> Place {
        Place::DType(dtype)
    }
}

impl From<Device> for Place {
    fn from(device: Device) -> Place {
        Place::Device(device)
    }
}

impl Place {
    fn of(self, tensor: &Tensor) -> Tensor {
        match self {
            Place::DType(dtype) if tensor.dtype().is_float() => tensor.detach().cast(dtype),
            Place::DType(_) => tensor.clone(),
            Place::Device(device) => tensor.detach().to(device),
        }
    }
}

#[derive(Default)]
struct Collect {
    names: Vec<String>,
    leaves: Vec<(String, Leaf)>,
    /// A place that is reached twice (tied weights) counts once, under its first path.
    seen: HashSet<usize>,
}

impl Collect {
    fn add(&mut self, leaf: Leaf) {
        if self.seen.insert(leaf.slot().id()) {
            self.leaves.push((self.names.join("."), leaf));
        }
    }
}

impl Visitor for Collect {
    fn parameter(&mut self, parameter: &Parameter) {
        self.add(Leaf::Parameter(parameter.clone()));
    }

    fn buffer(&mut self, buffer: &Buffer) {
        self.add(Leaf::Buffer(buffer.clone()));
    }

    fn enter(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    fn leave(&mut self) {
        self.names.pop();
    }
}

/// What every module can be asked.
pub trait ModuleExt: Module {
    /// Every parameter and buffer with its path, in visiting order; what two paths lead to comes once, under the first.
    fn leaves(&self) -> Vec<(String, Leaf)> {
        let mut collect = Collect::default();
        self.visit(&mut collect);
        collect.leaves
    }

    /// The parameters with their paths, in visiting order.
    ///
    /// ```
    /// use tapeflow_nn::{Linear, ModuleExt};
    /// let paths: Vec<String> = Linear::new(2, 3)?.named_parameters().into_iter().map(|(path, _)| path).collect();
    /// assert_eq!(paths, ["weight", "bias"]);
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    fn named_parameters(&self) -> Vec<(String, Parameter)> {
        let parameter = |(path, leaf)| match leaf {
            Leaf::Parameter(p) => Some((path, p)),
            Leaf::Buffer(_) => None,
        };
        self.leaves().into_iter().filter_map(parameter).collect()
    }

    /// The buffers with their paths, in visiting order.
    fn named_buffers(&self) -> Vec<(String, Buffer)> {
        let buffer = |(path, leaf)| match leaf {
            Leaf::Buffer(b) => Some((path, b)),
            Leaf::Parameter(_) => None,
        };
        self.leaves().into_iter().filter_map(buffer).collect()
    }

    /// The parameters, in visiting order.
    fn parameters(&self) -> Vec<Parameter> {
        self.named_parameters().into_iter().map(|(_, parameter)| parameter).collect()
    }

    /// The number of elements of all parameters.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(|p| p.tensor().numel()).sum()
    }

    /// A table of paths, shapes, counts and bytes.
    fn summary(&self) -> Summary {
        Summary::of(self)
    }

    /// Tells every parameter its path in this module, which gradients and errors then use. The last root that does so
    /// wins; models do it when they are built, and optimizers when they are given a model.
    fn stamp_paths(&self) {
        for (path, parameter) in self.named_parameters() {
            parameter.set_path(&path);
        }
    }

    /// Freezes the parameters whose path matches: they get no gradients. Returns how many match.
    ///
    /// # Errors
    /// [`Error::NoMatch`] if there is none.
    fn freeze(&self, pattern: &str) -> Result<usize> {
        each_matching(&self.named_parameters(), pattern, |_| true, |p| p.freeze(true))
    }

    /// Undoes [`freeze`](ModuleExt::freeze) for the parameters whose path matches.
    ///
    /// # Errors
    /// [`Error::NoMatch`] if there is none.
    fn unfreeze(&self, pattern: &str) -> Result<usize> {
        each_matching(&self.named_parameters(), pattern, |_| true, |p| p.freeze(false))
    }

    /// Runs `f` as in training: dropout drops.
    fn train<T>(&self, f: impl FnOnce() -> T) -> T
    where
        Self: Sized,
    {
        with_training(true, f)
    }

    /// Runs `f` as in evaluation: dropout is the identity.
    fn eval<T>(&self, f: impl FnOnce() -> T) -> T
    where
        Self: Sized,
    {
        with_training(false, f)
    }

    /// The tensors by path, parameters and buffers, as they are now.
    fn state(&self) -> Vec<(String, Tensor)> {
        self.leaves().into_iter().map(|(path, leaf)| (path, leaf.tensor())).collect()
    }

    /// Sets every parameter and buffer from tensors by name; all of them, or none.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] listing every name that is missing, unexpected, or of another shape or dtype.
    fn load_state(&self, state: Vec<(String, Tensor)>) -> Result<()> {
        checkpoint::assign(self.leaves(), state, "the state")
    }

    /// Converts every parameter and buffer of a float dtype to another float dtype, or moves them all to a device:
    /// all of them, or none. Paths, ties and what is frozen stay.
    ///
    /// In f16 or bf16 a model takes half the memory, for inference; to train in half precision, leave the parameters
    /// f32 and record with [`Precision`](crate::Precision). An optimizer's state does not move with the model: make
    /// the optimizer afterwards.
    ///
    /// # Errors
    /// A dtype that is no float, a device without memory, a step that is being captured.
    ///
    /// # Example
    /// ```
    /// use tapeflow_nn::{DType, Device, Forward, Linear, ModuleExt, Tensor};
    /// let layer = Linear::new(3, 2)?;
    /// layer.to(DType::BF16)?;
    /// layer.to(Device::cpu())?;
    /// assert_eq!(layer.forward(&Tensor::ones([1, 3], DType::BF16)).dtype(), DType::BF16);
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    fn to(&self, place: impl Into<Place>) -> Result<()>
    where
        Self: Sized,
    {
        let place = place.into();
        if let Place::DType(dtype) = place
            && !dtype.is_float()
        {
            return Err(Error::Configuration(format!("parameters cannot be of dtype {dtype}: it is no float dtype")));
        }
        let leaves = self.leaves();
        let moved: Vec<Tensor> = no_grad(|| leaves.iter().map(|(_, leaf)| place.of(&leaf.tensor())).collect());
        moved.iter().try_for_each(Tensor::realize)?;
        leaves.iter().zip(&moved).try_for_each(|((_, leaf), new)| Ok(leaf.slot().replace(new)?))
    }

    /// Keeps the parameters of two axes whose path matches in eight bits, one scale per row: a quarter of the memory
    /// and of the time that reading f32 weights takes, for inference. Returns how many match. What [`Linear`] and
    /// [`Embedding`] read of them is never made whole; [`ModuleExt::state`] and files hold their values in f32.
    ///
    /// [`Linear`]: crate::Linear
    /// [`Embedding`]: crate::Embedding
    ///
    /// # Errors
    /// [`Error::NoMatch`] if there is none; a weight that is not finite; a step that is being captured. Those before
    /// it are then converted.
    ///
    /// # Example
    /// ```
    /// use tapeflow_nn::{Forward, Linear, ModuleExt, Tensor};
    /// let layer = Linear::new(3, 2)?;
    /// let x = Tensor::from_vec(vec![1.0f32, -2.0, 3.0], [1, 3]);
    /// let before = layer.forward(&x).to_vec::<f32>()?;
    /// assert_eq!(layer.quantize_int8("*weight")?, 1);
    /// let after = layer.forward(&x).to_vec::<f32>()?;
    /// assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 0.02));
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    fn quantize_int8(&self, pattern: &str) -> Result<usize> {
        each_matching(&self.named_parameters(), pattern, is_matrix, Parameter::quantize_int8)
    }

    /// Keeps those parameters with two axes whose paths match the pattern in panels, which products of few rows read
    /// faster, for inference: the same values, the same bits. How many match. See [`Parameter::prepack`].
    ///
    /// What reads them should be layers, as for [`quantize_int8`](Self::quantize_int8); anything else unpacks them
    /// first, each time.
    ///
    /// # Errors
    /// [`Error::NoMatch`] if the pattern matches none; what [`Parameter::prepack`] refuses.
    /// # Example
    /// ```
    /// use tapeflow_nn::{Forward, Linear, ModuleExt, Tensor};
    /// let layer = Linear::new(3, 2)?;
    /// let x = Tensor::from_vec(vec![1.0f32, -2.0, 3.0], [1, 3]);
    /// let before = layer.forward(&x).to_vec::<f32>()?;
    /// assert_eq!(layer.prepack("*weight")?, 1);
    /// assert_eq!(layer.forward(&x).to_vec::<f32>()?, before);
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    fn prepack(&self, pattern: &str) -> Result<usize> {
        each_matching(&self.named_parameters(), pattern, is_matrix, Parameter::prepack)
    }

    /// Writes all parameters and buffers to a safetensors file, under another name first.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written, or the error of a pending computation.
    fn save(&self, path: impl AsRef<Path>) -> Result<()>
    where
        Self: Sized,
    {
        checkpoint::save(self, path)
    }

    /// Reads all parameters and buffers from a safetensors file; all of them, or none.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Malformed`] if it cannot be read, [`Error::CheckpointMismatch`] if it does not fit.
    fn load(&self, path: impl AsRef<Path>) -> Result<()>
    where
        Self: Sized,
    {
        checkpoint::load(self, path)
    }
}

impl<M: Module + ?Sized> ModuleExt for M {}

/// A parameter with its path.
type Named = (String, Parameter);

/// Calls `f` with every parameter that fits and whose path matches; how many those are.
fn each_matching(
    parameters: &[Named],
    pattern: &str,
    fits: impl Fn(&Parameter) -> bool,
    f: impl Fn(&Parameter) -> tapeflow_core::Result<()>,
) -> Result<usize> {
    let glob = Pattern::new(pattern);
    let matching: Vec<&Parameter> =
        parameters.iter().filter(|(path, p)| glob.matches(path) && fits(p)).map(|(_, p)| p).collect();
    if matching.is_empty() {
        let paths = parameters.iter().map(|(path, _)| path.clone()).collect();
        return Err(Error::NoMatch { pattern: pattern.to_owned(), paths });
    }
    matching.iter().try_for_each(|p| f(p))?;
    Ok(matching.len())
}

fn is_matrix(parameter: &Parameter) -> bool {
    parameter.tensor().ndim() == 2
}
