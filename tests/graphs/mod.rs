//! Random graphs: what they are made of, how they are run and compared. Owns no test.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use tapeflow::{DType, Generator, Result, Tensor, grad};

use crate::elements;

/// The same cases on every run.
pub fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..Config::default() }
}

/// One operation of a random graph: which, and what it takes its operands and attributes from.
pub type Step = (u8, u8, u8, u8);

/// A graph: its leaves' shapes, and its operations.
#[derive(Clone, Debug)]
pub struct Graph {
    pub leaves: Vec<Vec<usize>>,
    pub steps: Vec<Step>,
    pub dtype: DType,
    /// As many elements as a value may have.
    pub largest: usize,
}

pub fn graphs(dtype: DType) -> impl Strategy<Value = Graph> {
    let extent = prop_oneof![3 => 1usize..6, 1 => Just(16usize), 1 => Just(33usize), 1 => Just(70usize)];
    let leaf = vec(extent, 1..4).prop_filter("moderate", |shape| shape.iter().product::<usize>() <= 5000);
    let steps = vec(any::<Step>(), 1..16);
    (vec(leaf, 2..4), steps).prop_map(move |(leaves, steps)| Graph { leaves, steps, dtype, largest: 20_000 })
}

impl Graph {
    fn leaves(&self) -> Vec<Tensor> {
        let leaf = |(i, shape): (usize, &Vec<usize>)| {
            let generator = Generator::new(i as u64);
            let values: Vec<f64> =
                (0..shape.iter().product()).map(|_| f64::from(generator.next_f32()) * 2.0 - 1.0).collect();
            match self.dtype {
                DType::F64 => Tensor::from_vec(values, shape),
                // As data of that dtype, not as what is computed from wider data.
                dtype => elements::tensor(&values, dtype, shape),
            }
        };
        self.leaves.iter().enumerate().map(leaf).collect()
    }

    /// Everything that is computed: values on the way, a loss, and its gradients.
    fn record(&self) -> Result<Vec<Tensor>> {
        let leaves = self.leaves();
        let mut values = leaves.clone();
        for &step in &self.steps {
            let next = apply(&values, step);
            if next.numel() <= self.largest && next.numel() > 0 {
                values.push(next);
            }
        }
        let loss = values.iter().rev().take(4).chain(&leaves).map(|v| (v * v).mean()).reduce(|a, b| a + b);
        let loss = loss.unwrap_or_else(|| Tensor::scalar(0.0f32));
        let gradients = grad(&loss, &leaves.iter().collect::<Vec<_>>())?;
        let mut results: Vec<Tensor> = values[leaves.len()..].iter().rev().take(3).cloned().collect();
        results.push(loss);
        results.extend(gradients);
        Ok(results)
    }

    /// As bits, or as numbers where there are no bits to compare. All NaNs are one.
    pub fn run(&self, together: bool) -> Result<Vec<Vec<f64>>> {
        let results = self.record()?;
        if together {
            Tensor::realize_all(&results.iter().collect::<Vec<_>>())?;
        }
        results.iter().map(elements::floats).collect()
    }
}

/// The operation that `step` names, on values so far. Results stay of magnitude 1.
fn apply(values: &[Tensor], (op, first, second, attribute): Step) -> Tensor {
    let x = &values[usize::from(first) % values.len()];
    let y = &values[usize::from(second) % values.len()];
    let attribute = usize::from(attribute);
    let axis = if x.ndim() == 0 { 0 } else { attribute % x.ndim() };
    let extent = x.shape().get(axis).copied().unwrap_or(1);
    // An operand of any shape as one that broadcasts.
    let fitting = if x.shape().broadcast(y.shape()).is_some() { y.clone() } else { y.mean() };
    match (op % 28, x.ndim()) {
        (0, _) => x + &fitting,
        (1, _) => x * &fitting,
        (2, _) => (x - &fitting) / (fitting.square() + 1.0),
        (3, _) => x.maximum(&fitting),
        (4, _) => x.tanh(),
        (5, _) => (x * 1.5).sin(),
        (6, _) => x.gelu(),
        (7, _) => x.tanh().exp() * 0.4,
        (8, _) => x.gt(&fitting).where_(&x.abs(), &(&fitting * 0.5)),
        (9, 1..) => x.transpose(axis as isize, -1),
        (10, _) => x.reshape([-1]),
        (11, 1..) => x.slice_step(axis as isize, extent / 3.., 1 + attribute % 2),
        (12, _) => x.unsqueeze(0).expand([&[2 + attribute % 2], &x.shape()[..]].concat()),
        (13, _) => x.pad(&vec![(attribute % 2, attribute / 2 % 2); x.ndim()]),
        (14, 1..) => Tensor::cat(&[x, &(x * 0.5), x], axis as isize),
        (15, 1..) => x.sum_dim([axis], attribute % 3 == 0) / extent as f64,
        (16, 1..) => x.mean_dim([axis], attribute % 3 == 0),
        (17, 1..) => x.max_dim([axis], attribute % 3 == 0),
        (18, 2..) => x.matmul(&x.t()) / x.shape()[x.ndim() - 1] as f64,
        (19, 2..) if y.ndim() == 2 && y.shape()[0] == x.shape()[x.ndim() - 1] => x.matmul(y) * 0.3,
        (19, 2..) => x.t().matmul(x) / x.shape()[x.ndim() - 2] as f64,
        (20, 1..) => x.softmax(axis as isize),
        (21, 1..) => x.log_softmax(-1) * 0.3,
        (22, 1..) => {
            let last = x.shape()[x.ndim() - 1];
            let weight = y.mean() + x.slice(0, ..1).reshape([-1]).slice(0, ..1).expand([last]) * 0.1;
            x.layer_norm(&weight, None, 0.1)
        }
        (23, 1..) => {
            let index: Vec<i64> = (0..3).map(|i| ((attribute + i * 2) % extent) as i64).collect();
            x.index_select(axis as isize, &Tensor::from_vec(index, [3]))
        }
        (24, _) => x.dropout(0.3, &Generator::new(attribute as u64)),
        (25, 1..) => x.var_dim([axis], 0, true) + x,
        (26, 2..) => x.flatten(0, 1),
        (27, 1..) => {
            let start = extent / 3;
            let part = x.slice(axis as isize, start..start + extent.div_ceil(2).min(extent - start)) * 0.7;
            x.slice_assign(axis as isize, attribute % (extent - part.shape()[axis] + 1), &part)
        }
        _ => x * 0.9,
    }
}

pub fn same_bits(what: &str, a: &[Vec<f64>], b: &[Vec<f64>]) -> Result<(), TestCaseError> {
    for (k, (a, b)) in a.iter().zip(b).enumerate() {
        prop_assert_eq!(a.len(), b.len());
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
            prop_assert!(same, "{}: result {}[{}] is {:e} and {:e}", what, k, i, x, y);
        }
    }
    Ok(())
}

pub fn ok<T>(result: Result<T>) -> Result<T, TestCaseError> {
    result.map_err(|e| TestCaseError::fail(e.to_string()))
}
