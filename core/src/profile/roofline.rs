//! What a device can do at best, measured: the floor that a kernel's time is compared with (Williams, Waterman &
//! Patterson 2009, the roofline model). Owns the probe; the peaks it finds are those of tapeflow's own kernels.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tapeflow_ir::DType;

use super::{KernelProfile, hidden};
use crate::device::Device;
use crate::error::{Error, Problem, Result};
use crate::locks;
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// The two ceilings of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// f32 operations per second, as 10⁹.
    pub gflops: f64,
    /// Bytes from and to memory per second, as 10⁹.
    pub gigabytes_per_second: f64,
}

/// Rows and columns of the product that is timed, and elements of what is copied.
const SIDE: usize = 768;
const COPIED: usize = 1 << 24;
/// How long each is repeated; the best time counts.
const PATIENCE: Duration = Duration::from_millis(150);

impl Roofline {
    /// The ceilings of a device: `TAPEFLOW_PEAK_GFLOPS` and `TAPEFLOW_PEAK_GBS` where they are set, else the best of a
    /// probe of about half a second, which is made once: a product of 768² matrices, and a copy of 64 MiB.
    ///
    /// # Errors
    /// A variable that is no positive number; what the device reports.
    pub fn of(device: Device) -> Result<Roofline> {
        static KNOWN: Mutex<BTreeMap<crate::device::Kind, Roofline>> = Mutex::new(BTreeMap::new());
        let mut known = locks::lock(&KNOWN);
        if let Some(&roofline) = known.get(&device.0) {
            return Ok(roofline);
        }
        let (flops, bytes) = (given("TAPEFLOW_PEAK_GFLOPS")?, given("TAPEFLOW_PEAK_GBS")?);
        let roofline = hidden(|| {
            device.scope(|| {
                let gflops = flops.map_or_else(product, Ok)?;
                let gigabytes_per_second = bytes.map_or_else(copy, Ok)?;
                Ok::<_, Error>(Roofline { gflops, gigabytes_per_second })
            })
        })?;
        known.insert(device.0, roofline);
        Ok(roofline)
    }

    /// The least nanoseconds that a call of a kernel takes by these ceilings.
    pub fn floor(&self, kernel: &KernelProfile) -> f64 {
        let wide = if kernel.dtype == DType::F64 { 2.0 } else { 1.0 };
        let compute = kernel.flops as f64 * wide / self.gflops;
        let memory = (kernel.bytes_read + kernel.bytes_written) as f64 / self.gigabytes_per_second;
        compute.max(memory)
    }
}

fn given(variable: &str) -> Result<Option<f64>> {
    let Some(text) = std::env::var(variable).ok().filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(Some(number)),
        _ => {
            let problem = Problem::Setting(format!("{variable}={text:?} is not a positive number"));
            Err(Error::new("profile", problem, Site::here()))
        }
    }
}

fn product() -> Result<f64> {
    let a = Tensor::full([SIDE, SIDE], 0.5, DType::F32);
    a.realize()?;
    let best = best_of(|| a.matmul(&a).realize())?;
    Ok(2.0 * (SIDE * SIDE * SIDE) as f64 / best)
}

fn copy() -> Result<f64> {
    let a = Tensor::full([COPIED], 0.5, DType::F32);
    a.realize()?;
    let best = best_of(|| (-&a).realize())?;
    Ok(8.0 * COPIED as f64 / best)
}

/// The least nanoseconds.
fn best_of(run: impl Fn() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    for turn in 0.. {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_nanos() as f64);
        if turn >= 2 && begin.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(best.max(1.0))
}
