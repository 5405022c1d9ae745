//! A training run: what is trained, evaluated, shown and saved, and when.

use std::ops::ControlFlow;
use std::time::Instant;

use tapeflow::metrics::Record;
use tapeflow::models::{LeNet, ResNet20};
use tapeflow::progress::Progress;
use tapeflow::schedule::WarmupCosine;
use tapeflow::{
    Adam, Forward, Generator, LossScaler, Module, ModuleExt, Optimizer, Precision, Result as NnResult, Step, Tensor,
    Trainer,
};

use crate::digits;
use crate::evaluate::{self, Reading};
use crate::failure::Failure;
use crate::images::{CLASSES, Images};
use crate::mnist;
use crate::options::{Network, Options};
use crate::run_folder::RunFolder;
use crate::stop;

/// Trains as the options say.
pub fn train(options: &Options) -> Result<(), Failure> {
    let (train, test) = match &options.data {
        Some(folder) => mnist::read(folder)?,
        None => (digits::draw(options.drawn, options.seed), digits::draw(options.drawn.div_ceil(5), !options.seed)),
    };
    if options.batch_size > train.len() {
        let (batch, images) = (options.batch_size, train.len());
        return Err(Failure::Usage(format!("--batch-size {batch} is more than the {images} images there are")));
    }
    let generator = Generator::new(options.seed);
    options.precision.scope(|| match options.model {
        Network::Lenet => run(&LeNet::new(CLASSES, &generator)?, options, &train, &test),
        Network::Resnet20 => run(&ResNet20::new(1, CLASSES, &generator)?, options, &train, &test),
    })
}

fn run(model: &(impl Module + Forward), options: &Options, train: &Images, test: &Images) -> Result<(), Failure> {
    let batch = options.batch_size;
    let batches = train.shuffled(batch, options.shift, options.seed);
    let per_epoch = batches.batches_per_epoch();
    let steps = per_epoch * options.epochs as u64;
    let source = options.data.as_ref().map_or("drawn".to_owned(), |folder| folder.display().to_string());
    println!("images    {source}: {} for training, {} for testing", train.len(), test.len());
    println!("model     {:?}: {} parameters", options.model, model.num_parameters());
    println!(
        "training  {} epochs of {per_epoch} batches of {batch} in {} on {}",
        options.epochs, options.precision, options.device
    );
    stop::at_ctrl_c()?;
    let mut folder = RunFolder::create(&options.out)?;
    let mut progress = Progress::new(0, steps);
    let adam = Adam::new(model);
    let mut optimizer: Box<dyn Optimizer> = match options.precision {
        Precision::F16 => Box::new(LossScaler::new(adam)),
        _ => Box::new(adam),
    };
    let schedule = WarmupCosine {
        learning_rate: options.learning_rate,
        min_lr: options.learning_rate / 100.0,
        warmup_steps: (steps / 20).min(100),
        decay_steps: steps,
    };
    let trainer = Trainer { steps: 0..steps, schedule: &schedule, grad_clip: 0.0 };
    let (mut mean, mut seconds, mut since) = (None, 0.0, Instant::now());
    let (mut diverged, mut taken) = (false, 0);
    let after = |step: &Step| -> NnResult<ControlFlow<()>> {
        let loss = f64::from(step.loss.item::<f32>()?);
        let took = since.elapsed().as_secs_f64();
        seconds += took;
        let mut record = Record::new(step.step).with("images_per_second", batch as f64 / took);
        (record.train_loss, record.learning_rate) = (Some(loss), Some(step.learning_rate));
        folder.record(&record)?;
        if !loss.is_finite() {
            diverged = true;
            return Ok(ControlFlow::Break(()));
        }
        taken = step.step + 1;
        let running = mean.map_or(loss, |mean: f64| mean + 0.02 * (loss - mean));
        mean = Some(running);
        progress.set_train_loss(running);
        progress.set_speed((step.step + 1) as f64 * batch as f64 / seconds, "images/s");
        progress.advance_to(step.step + 1);
        if stop::is_wanted() {
            return Ok(ControlFlow::Break(()));
        }
        let done = step.step + 1;
        if done.is_multiple_of(per_epoch) && done < steps {
            let reading = evaluate::read(model, test)?;
            progress.set_val_loss(reading.loss);
            progress.print(&format!("epoch {}: {}", done / per_epoch, summary(&reading)));
            folder.record(&record_of(&reading, done))?;
            folder.save(model, options)?;
        }
        since = Instant::now();
        Ok(ControlFlow::Continue(()))
    };
    let loss = |(inputs, digits): &(Tensor, Tensor)| model.forward(inputs).cross_entropy(digits);
    trainer.run(model, optimizer.as_mut(), batches.steps(0..steps), loss, after)?;
    if diverged {
        let rate = options.learning_rate;
        return Err(Failure::Run(format!(
            "the loss is no finite number: training has diverged; a lower --learning-rate than {rate} may help"
        )));
    }
    let reading = evaluate::read(model, test)?;
    folder.record(&record_of(&reading, taken))?;
    folder.save(model, options)?;
    folder.draw_mistakes(test, &reading.mistakes)?;
    folder.draw_filters(model)?;
    progress.finish();
    println!("{}", reading.table());
    println!("{}", summary(&reading));
    if taken < steps {
        println!("stopped after {taken} of {steps} steps");
    }
    println!("{seconds:.1} s in steps, {:.0} images/s", taken as f64 * batch as f64 / seconds);
    println!("written to {}: checkpoint, metrics.jsonl, mistakes.png, filters.png", folder.path().display());
    Ok(())
}

fn summary(reading: &Reading) -> String {
    let (accuracy, wrong) = (100.0 * reading.accuracy(), reading.mistakes.len());
    format!("test accuracy {accuracy:.2} %, {wrong} mistakes, loss {:.4}", reading.loss)
}

fn record_of(reading: &Reading, step: u64) -> Record {
    Record { val_loss: Some(reading.loss), ..Record::new(step) }.with("test_accuracy", reading.accuracy())
}
