//! The simple recurrent network of Elman 1990, "Finding Structure in Time".

use tapeflow_core::Tensor;

use super::recurrent;
use super::stack::Stack;

/// A recurrent network without gates. PyTorch's `RNN`, batch first.
///
/// # Shapes
/// `x: (B, T, inputs)` → `(B, T, D · hidden)`, states `(layers · D, B, hidden)`; D is 2 if bidirectional, else 1
/// # Formula
/// `h' = tanh(x Wᵢᵀ + bᵢ + h Wₕᵀ + bₕ)`, or with relu. Elman 1990.
///
/// ```
/// use tapeflow_nn::{Forward, Generator, ModuleExt, Rnn};
/// let generator = Generator::new(1);
/// let rnn = Rnn::drawn(3, 4, 2, true, &generator)?;
/// let (y, state) = rnn.run(&generator.randn([5, 7, 3]), None);
/// assert_eq!((y.dims(), state.dims()), ([5, 7, 8], [4, 5, 4]));
/// assert_eq!(rnn.named_parameters()[4].0, "weight_ih_l0_reverse");
/// assert_eq!(rnn.forward(&generator.randn([5, 7, 3])).to_vec::<f32>()?.len(), 5 * 7 * 8);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rnn {
    stack: Stack,
    nonlinearity: Nonlinearity,
}

/// What an [`Rnn`] applies to its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nonlinearity {
    /// The hyperbolic tangent.
    #[default]
    Tanh,
    /// The larger of the sum and 0.
    Relu,
}

recurrent!(Rnn, 1);

impl Rnn {
    fn of(stack: Stack) -> Rnn {
        Rnn { stack, nonlinearity: Nonlinearity::Tanh }
    }

    /// With another nonlinearity than tanh.
    pub fn nonlinearity(mut self, nonlinearity: Nonlinearity) -> Self {
        self.nonlinearity = nonlinearity;
        self
    }

    /// The outputs, and the last state, from an initial state (zeros if `None`).
    ///
    /// # Errors
    /// Inputs or a state of another shape.
    #[track_caller]
    pub fn run(&self, x: &Tensor, initial: Option<&Tensor>) -> (Tensor, Tensor) {
        let initial: Vec<&Tensor> = initial.into_iter().collect();
        let (y, mut last) = self.stack.run("Rnn", x, &initial, 1, true, &|direction, x, states| {
            let sum = x + direction.of_state(&states[0], false);
            vec![match self.nonlinearity {
                Nonlinearity::Tanh => sum.tanh(),
                Nonlinearity::Relu => sum.relu(),
            }]
        });
        (y, last.swap_remove(0))
    }
}
