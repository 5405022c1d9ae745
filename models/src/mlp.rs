//! A multilayer perceptron: affine maps with an activation between them (Rumelhart, Hinton & Williams 1986, "Learning
//! representations by back-propagating errors").

use tapeflow_nn::{Forward, Generator, Linear, Module, ModuleExt, Result, Tensor};

/// Affine maps with an activation between them, none after the last. Paths: `layers.0.weight`, `layers.0.bias`, …
///
/// ```
/// use tapeflow_models::Mlp;
/// use tapeflow_nn::{DType, Forward, Generator, ModuleExt, Tensor};
/// let net = Mlp::new(&[2, 4, 1], Tensor::tanh, &Generator::new(1))?;
/// assert_eq!(net.num_parameters(), 2 * 4 + 4 + 4 + 1);
/// assert_eq!(net.forward(&Tensor::zeros([5, 2], DType::F32)).shape().to_vec(), [5, 1]);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Mlp {
    /// Each maps one width to the next.
    pub layers: Vec<Linear>,
    /// What stands between two layers.
    #[module(skip)]
    pub activation: fn(&Tensor) -> Tensor,
}

impl Mlp {
    /// One layer from each width to the next, initialised as [`Linear::drawn`] does it.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(widths: &[usize], activation: fn(&Tensor) -> Tensor, generator: &Generator) -> Result<Self> {
        let layers = widths.windows(2).map(|w| Linear::drawn(w[0], w[1], generator)).collect::<Result<_>>()?;
        let mlp = Mlp { layers, activation };
        mlp.stamp_paths();
        Ok(mlp)
    }
}

impl Forward for Mlp {
    /// `(…, first width)` → `(…, last width)`
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let last = self.layers.len().saturating_sub(1);
        self.layers.iter().enumerate().fold(x.clone(), |x, (index, layer)| {
            let _scope = tapeflow::__macro::scope_index("layers", index);
            let y = layer.forward(&x);
            if index < last { (self.activation)(&y) } else { y }
        })
    }
}
