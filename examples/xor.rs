//! XOR twice: with scalar values one number at a time, then with tensors, from the same weights.
//!
//! The scalar engine and the tensor engine share no code, so where their gradients agree, both are right. Owns the two
//! training loops and the comparison.

use std::process::ExitCode;
use std::str::FromStr;

use clap::Parser;
use tapeflow::prelude::*;
use tapeflow::scalar::{self, Activation, Random, Value};

/// The four inputs and what is wanted for each.
const TABLE: [([f64; 2], f64); 4] = [([0.0, 0.0], 0.0), ([0.0, 1.0], 1.0), ([1.0, 0.0], 1.0), ([1.0, 1.0], 0.0)];
/// Below this, the network has learned the table.
const LEARNED: f64 = 1e-3;
/// The engines' gradients may differ by this much, relative to the larger or to 1.
const TOLERANCE: f64 = 1e-12;

type Failure = Box<dyn std::error::Error>;

/// Learns XOR with a 2-4-1 network: first with scalar values, then with tensors.
#[derive(Parser)]
#[command(name = "xor")]
struct Options {
    /// Seed of the initial weights
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Steps of gradient descent, each on all four inputs
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Learning rate
    #[arg(long, default_value_t = 0.2, value_name = "RATE", value_parser = rate)]
    learning_rate: f64,
    /// Device for the tensors: cpu, vulkan, vulkan:N or best
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = Device::from_str)]
    device: Device,
    /// Print the graph of one squared error for Graphviz, and nothing else: `… -- --dot | dot -Tsvg > xor.svg`
    #[arg(long)]
    dot: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("a number above 0 is needed".into()),
    }
}

/// The same network on tensors.
#[derive(Module)]
#[module(forward = |x| out(hidden(x).tanh()))]
struct Xor {
    hidden: Linear,
    out: Linear,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let scalars = scalar::Mlp::new(&[2, 4, 1], Activation::Tanh, Activation::Linear, &mut Random::new(options.seed));
    if options.dot {
        print!("{}", drawing(&scalars)?);
        return Ok(());
    }
    // Before training: the tensors start from the same weights.
    let (tensors, difference) = options.device.scope(|| {
        let tensors = on_tensors(&scalars)?;
        let difference = compare(&scalars, &tensors)?;
        Ok::<_, Failure>((tensors, difference))
    })?;

    println!("Scalar values: a 2-4-1 network of {} numbers", scalars.parameters().len());
    train_scalars(&scalars, options)?;
    println!("\nTensors: the same network as a module of {} parameters", tensors.num_parameters());
    options.device.scope(|| train_tensors(&tensors, options))?;

    println!(
        "\nGradients of both at the same f64 weights differ by {difference:.1e} at most (allowed: {TOLERANCE:.0e})"
    );
    if difference.is_nan() || difference > TOLERANCE {
        return Err(format!("the two engines' gradients differ by {difference:e}").into());
    }
    Ok(())
}

/// Mean squared error over the table.
fn scalar_loss(model: &scalar::Mlp) -> Result<Value, Failure> {
    let mut loss = Value::new(0.0);
    for (inputs, wanted) in TABLE {
        loss += (&model.forward(&inputs.map(Value::new))?[0] - wanted).powf(2.0);
    }
    Ok(loss / TABLE.len() as f64)
}

fn train_scalars(model: &scalar::Mlp, options: &Options) -> Result<(), Failure> {
    for step in 0..options.steps {
        let loss = scalar_loss(model)?;
        model.zero_grad();
        loss.backward();
        for parameter in model.parameters() {
            parameter.set_data(parameter.data() - options.learning_rate * parameter.grad());
        }
        report(step, options.steps, loss.data());
    }
    let mut answers = Vec::new();
    for (inputs, _) in TABLE {
        answers.push(model.forward(&inputs.map(Value::new))?[0].data());
    }
    conclude(&answers, scalar_loss(model)?.data())
}

fn train_tensors(model: &Xor, options: &Options) -> Result<(), Failure> {
    let (inputs, targets) = table();
    let mut optimizer = Sgd::new(model).learning_rate(options.learning_rate);
    for step in 0..options.steps {
        let loss = model.forward(&inputs).mse_loss(&targets);
        optimizer.step(loss.backward()?)?;
        report(step, options.steps, loss.item()?);
    }
    let answers = model.forward(&inputs);
    conclude(&answers.to_vec()?, answers.mse_loss(&targets).item()?)
}

/// The table as tensors: inputs (4, 2), targets (4, 1).
fn table() -> (Tensor, Tensor) {
    let inputs: Vec<f64> = TABLE.iter().flat_map(|(inputs, _)| *inputs).collect();
    let targets: Vec<f64> = TABLE.iter().map(|(_, wanted)| *wanted).collect();
    (Tensor::from_vec(inputs, [4, 2]), Tensor::from_vec(targets, [4, 1]))
}

/// A module with the weights of the scalar network.
fn on_tensors(model: &scalar::Mlp) -> Result<Xor, Failure> {
    let linear = |layer: &scalar::Layer| {
        let (outputs, inputs) = (layer.neurons.len(), layer.neurons[0].weights.len());
        let weights: Vec<f64> = layer.neurons.iter().flat_map(|n| n.weights.iter().map(Value::data)).collect();
        let biases: Vec<f64> = layer.neurons.iter().map(|n| n.bias.data()).collect();
        Linear::from_tensors(Tensor::from_vec(weights, [outputs, inputs]), Some(Tensor::from_vec(biases, [outputs])))
    };
    Ok(Xor { hidden: linear(&model.layers[0])?, out: linear(&model.layers[1])? })
}

/// The largest difference between the two engines' gradients, relative to the larger of the two or to 1.
fn compare(scalars: &scalar::Mlp, tensors: &Xor) -> Result<f64, Failure> {
    scalars.zero_grad();
    scalar_loss(scalars)?.backward();
    let (inputs, targets) = table();
    let gradients = tensors.forward(&inputs).mse_loss(&targets).backward()?;
    let mut largest = 0f64;
    for (linear, layer) in [&tensors.hidden, &tensors.out].into_iter().zip(&scalars.layers) {
        let weights = layer.neurons.iter().flat_map(|n| n.weights.iter().map(Value::grad)).collect();
        let biases = layer.neurons.iter().map(|n| n.bias.grad()).collect();
        let parameters: [(Option<&Parameter>, Vec<f64>); 2] =
            [(Some(&linear.weight), weights), (linear.bias.as_ref(), biases)];
        for (parameter, expected) in parameters {
            let gradient = parameter.and_then(|p| gradients.get(p)).ok_or("a parameter has no gradient")?;
            for (found, expected) in gradient.to_vec::<f64>()?.into_iter().zip(expected) {
                let difference = (found - expected).abs() / found.abs().max(expected.abs()).max(1.0);
                // Not `max`, which would pass over NaN.
                largest = if difference <= largest { largest } else { difference };
            }
        }
    }
    Ok(largest)
}

fn report(step: u32, steps: u32, loss: f64) {
    if step.is_multiple_of((steps / 10).max(1)) {
        println!("  step {step:5}  loss {loss:.2e}");
    }
}

fn conclude(answers: &[f64], loss: f64) -> Result<(), Failure> {
    println!("  at the end  loss {loss:.2e}");
    for ((inputs, wanted), answer) in TABLE.iter().zip(answers) {
        println!("  {} xor {} = {answer:7.4}  (wanted: {wanted})", inputs[0], inputs[1]);
    }
    if loss.is_nan() || loss >= LEARNED {
        return Err(format!("the loss ends at {loss:.2e} and should be below {LEARNED:.0e}: more --steps?").into());
    }
    Ok(())
}

/// How one answer's squared error comes about, with gradients.
fn drawing(model: &scalar::Mlp) -> Result<String, Failure> {
    for (l, layer) in model.layers.iter().enumerate() {
        for (n, neuron) in layer.neurons.iter().enumerate() {
            for (w, weight) in neuron.weights.iter().enumerate() {
                let _ = weight.clone().named(&format!("w{l}[{n},{w}]"));
            }
            let _ = neuron.bias.clone().named(&format!("b{l}[{n}]"));
        }
    }
    let (inputs, wanted) = TABLE[1];
    let inputs = [Value::new(inputs[0]).named("x1"), Value::new(inputs[1]).named("x2")];
    let answer = model.forward(&inputs)?[0].clone().named("answer");
    let error = (answer - Value::new(wanted).named("wanted")).powf(2.0).named("error");
    error.backward();
    Ok(error.to_dot())
}
