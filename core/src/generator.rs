//! Random generators: a seed and a counter. Each recording takes a counter of its own; the numbers are a function of
//! (seed, counter, position), so they are the same on every device, for any number of threads, and cost no memory until
//! stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use crate::device::Device;
use crate::locks;
use crate::ops::kernel::map;
use crate::ops::source::Random;
use crate::random;
use crate::tape::TensorType;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// One stream of random words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stream {
    pub seed: u64,
    pub counter: u64,
}

impl Stream {
    /// Word `index` of draw `ordinal` as a uniform number in [0, 1), a multiple of 2⁻²⁴.
    pub fn uniform(&self, ordinal: u32, index: u64) -> f32 {
        random::uniform(random::Stream { seed: self.seed, counter: self.counter, ordinal }.word(index))
    }
}

/// A source of random tensors. Clones share the counter.
///
/// # Example
/// ```
/// # use tapeflow_core::Generator;
/// let a = Generator::new(7).rand([3]).to_vec::<f32>()?;
/// let b = Generator::new(7).rand([3]).to_vec::<f32>()?;
/// assert_eq!(a, b);
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    counter: Arc<AtomicU64>,
}

/// Box & Muller 1958. `1 − u` is never 0.
#[kernel]
fn normal(u: f32, v: f32) -> f32 {
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

impl Generator {
    /// A generator whose numbers are a function of `seed` and of how often it was asked.
    pub fn new(seed: u64) -> Generator {
        Generator { seed, counter: Arc::new(AtomicU64::new(0)) }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many streams were taken.
    pub fn counter(&self) -> u64 {
        self.counter.load(Relaxed)
    }

    /// Continues after `counter` streams, as if they had been taken.
    pub fn set_counter(&self, counter: u64) {
        self.counter.store(counter, Relaxed);
    }

    fn next(&self) -> Stream {
        Stream { seed: self.seed, counter: self.counter.fetch_add(1, Relaxed) }
    }

    /// A whole number below `bound` (which is at least 1), each equally likely up to 2⁻²⁴.
    pub fn below(&self, bound: usize) -> usize {
        ((f64::from(self.next().uniform(0, 0)) * bound as f64) as usize).min(bound.saturating_sub(1))
    }

    /// A uniform number in [0, 1).
    pub fn next_f32(&self) -> f32 {
        self.next().uniform(0, 0)
    }

    #[track_caller]
    pub(crate) fn uniform_on(&self, shape: Shape, dtype: DType, device: Device) -> Tensor {
        Tensor::record(Random::new(self.next(), self.counter.clone()), &[], TensorType { dtype, shape, device })
    }

    /// Uniform f32 numbers in [0, 1).
    #[track_caller]
    pub fn rand(&self, shape: impl Into<Shape>) -> Tensor {
        self.uniform_on(shape.into(), DType::F32, Device::current())
    }

    /// Normal f32 numbers of mean 0 and standard deviation 1. Box & Muller 1958.
    #[track_caller]
    pub fn randn(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let (u, v) = (self.rand(&shape), self.rand(&shape));
        let [out] = map(normal::TEMPLATE, &[&u, &v]);
        out
    }

    /// Whole numbers in `low..high` as i64.
    #[track_caller]
    pub fn randint(&self, low: i64, high: i64, shape: impl Into<Shape>) -> Tensor {
        let span = high.saturating_sub(low).max(0);
        let scaled = self.uniform_on(shape.into(), DType::F64, Device::current()) * span;
        scaled.floor().cast(DType::I64) + low
    }
}

static DEFAULT: std::sync::LazyLock<std::sync::Mutex<Generator>> =
    std::sync::LazyLock::new(|| std::sync::Mutex::new(Generator::new(0)));

/// Seeds the generator that `Tensor::rand` and layers without one of their own use.
pub fn manual_seed(seed: u64) {
    *locks::lock(&DEFAULT) = Generator::new(seed);
}

/// The generator that `Tensor::rand` and layers without one of their own use.
pub fn default_generator() -> Generator {
    locks::lock(&DEFAULT).clone()
}
