//! LeNet-5. LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition"; with
//! rectifiers, maxima and dense connections as is usual today, where it had tanh, scaled averages and a table.

use tapeflow_nn::{Conv2d, Flatten, Generator, Linear, MaxPool2d, Module, ModuleExt, Relu, Result};

/// Two convolutions with pools, three affine maps: `(N, 1, 28, 28)` → `(N, classes)`.
///
/// Paths: `conv1`, `conv2`, `fc1`, `fc2`, `fc3`, each with `weight` and `bias`.
///
/// ```
/// use tapeflow_models::LeNet;
/// use tapeflow_nn::{DType, Forward, Generator, ModuleExt, Tensor};
/// let net = LeNet::new(10, &Generator::new(1))?;
/// assert_eq!(net.num_parameters(), 61_706);
/// assert_eq!(net.forward(&Tensor::zeros([2, 1, 28, 28], DType::F32)).shape().to_vec(), [2, 10]);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
#[module(forward = |x| {
    let x = pool(relu(conv1(x)));   // (N, 6, 14, 14)
    let x = pool(relu(conv2(x)));   // (N, 16, 5, 5)
    fc3(relu(fc2(relu(fc1(flatten(x))))))
})]
pub struct LeNet {
    /// 6 kernels of 5 × 5.
    pub conv1: Conv2d,
    /// 16 kernels of 5 × 5.
    pub conv2: Conv2d,
    /// To 120.
    pub fc1: Linear,
    /// To 84.
    pub fc2: Linear,
    /// To the classes.
    pub fc3: Linear,
    pool: MaxPool2d,
    relu: Relu,
    flatten: Flatten,
}

impl LeNet {
    /// Initialised layer by layer as PyTorch does it.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(classes: usize, generator: &Generator) -> Result<Self> {
        let net = LeNet {
            conv1: Conv2d::drawn(1, 6, 5, generator)?.padding(2),
            conv2: Conv2d::drawn(6, 16, 5, generator)?,
            fc1: Linear::drawn(16 * 5 * 5, 120, generator)?,
            fc2: Linear::drawn(120, 84, generator)?,
            fc3: Linear::drawn(84, classes, generator)?,
            pool: MaxPool2d::new(2),
            relu: Relu,
            flatten: Flatten,
        };
        net.stamp_paths();
        Ok(net)
    }
}
