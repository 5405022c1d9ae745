//! Failures of the device while a model trains on it: an `Err` every time, parameters as they were or known to be lost,
//! and a fresh context that works.

use tapeflow::prelude::*;
use tapeflow::vulkan::{Fault, VulkanDevice, clear, inject};
use tapeflow::{Error, Problem, Result};

use super::Vulkan;

struct Net {
    model: Mlp,
    optimizer: Adam,
}

impl Net {
    fn new() -> Result<Net> {
        let model = Mlp::new(&[6, 9, 3], Tensor::relu, &Generator::new(2))?;
        let optimizer = Adam::new(&model).learning_rate(1e-2);
        Ok(Net { model, optimizer })
    }

    fn step(&mut self, step: i64) -> Result<f32> {
        let x = Tensor::from_vec((0..24).map(|i| (i as f32 * 0.3 + step as f32).sin()).collect::<Vec<_>>(), [4, 6]);
        let y = Tensor::from_vec((0..4).map(|i| (i + step) % 3).collect::<Vec<i64>>(), [4]);
        let loss = self.model.forward(&x).cross_entropy(&y);
        self.optimizer.step(loss.backward()?)?;
        Ok(loss.item::<f32>()?)
    }

    fn state(&self) -> Result<Vec<Vec<f32>>> {
        self.model.parameters().iter().map(|p| Ok(p.tensor().to_vec::<f32>()?)).collect()
    }
}

fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Tensor(e) if matches!(e.problem(), Problem::Device { reason, .. } if reason.contains("lost")))
}

/// Makes `fault` strike at every point of a new model's first steps, one after another.
fn strike_everywhere(vulkan: &Vulkan, fault: Fault) -> Result<()> {
    let mut device = vulkan.device;
    for after in 0..200 {
        let mut net = device.scope(Net::new)?;
        device.scope(|| net.step(0))?;
        let before = net.state()?;
        inject(fault, after);
        let outcome = device.scope(|| (1..3).try_for_each(|s| net.step(s).map(drop)));
        clear();
        let Err(error) = outcome else {
            assert!(after > 0, "{fault:?} never struck");
            return Ok(());
        };
        let message = error.to_string();
        assert!(!message.contains("panicked"), "{fault:?} after {after}: {message}");
        if is_lost(&error) {
            // Everything on the device is gone, and says so; the device opened again works.
            let refused = net.state().unwrap_err().to_string();
            assert!(refused.contains("lost"), "{refused}");
            device = Device::vulkan(0)?;
            let mut fresh = device.scope(Net::new)?;
            device.scope(|| fresh.step(0))?;
        } else {
            // Some step failed as a whole: the state is that of a number of whole steps.
            let mut whole = device.scope(Net::new)?;
            device.scope(|| whole.step(0))?;
            let mut states = vec![whole.state()?];
            for step in 1..3 {
                device.scope(|| whole.step(step))?;
                states.push(whole.state()?);
            }
            assert_eq!(states[0], before);
            let after_failure = net.state()?;
            assert!(states.contains(&after_failure), "{fault:?} after {after} left a step half done: {message}");
            device.scope(|| net.step(1))?;
        }
    }
    panic!("{fault:?} strikes without end")
}

macro_rules! strikes {
    ($($name:ident: $fault:ident,)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            let Some(vulkan) = Vulkan::open() else { return Ok(()) };
            strike_everywhere(&vulkan, Fault::$fault)
        }
    )*};
}

strikes! {
    refused_memory: Allocate,
    refused_submissions: Submit,
    waits_that_end_in_nothing: Wait,
    a_lost_device: Lost,
}

#[test]
fn a_refused_shader_is_an_error_of_the_call() -> Result<()> {
    let Some(vulkan) = Vulkan::open() else { return Ok(()) };
    vulkan.device.scope(|| {
        let x = Tensor::from_vec(vec![1.0f32; 77], [7, 11]);
        inject(Fault::Pipeline, 0);
        let refused = ((&x * 1.25).tanh() + 0.75).to_vec::<f32>();
        clear();
        let error = refused.unwrap_err();
        assert!(matches!(error.problem(), Problem::Device { .. }), "{error}");
        assert_eq!(((&x * 1.25).tanh() + 0.75).to_vec::<f32>()?.len(), 77);
        Ok(())
    })
}
