//! Moving a value to another device.

use std::borrow::Cow;

use super::Primitive;
use crate::compile::fuse::Lower;
use crate::compile::world::Vjp;
use crate::device::{Device, Kind};
use crate::error::{Error, Problem};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// The same value on the device of the node's type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ToDevice;

impl Primitive for ToDevice {
    fn name(&self) -> Cow<'static, str> {
        "to".into()
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let ty = cx.world.ty[cx.inputs[0].index()].clone();
        let value = cx.world.push(ToDevice, &[cx.cotangent], ty);
        cx.contribute(0, value);
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        cx.emit_copy();
        Ok(())
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].with_type(ty))
    }
}

impl Tensor {
    /// The same value on another device; itself if it is there already. The copy is made when a program needs it, and
    /// cotangents come back the same way.
    ///
    /// # Errors
    /// From or to the reference device, which takes no part in the programs of others.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::{Device, Tensor};
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0], [2]).to(Device::best()?);
    /// assert_eq!((x * 2.0).to(Device::cpu()).to_vec::<f32>()?, [2.0, 4.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn to(&self, device: Device) -> Tensor {
        let site = Site::here();
        if self.device() == device {
            return self.clone();
        }
        let ty = TensorType { device, ..self.ty().clone() };
        if [self.device(), device].iter().any(|d| d.0 == Kind::Reference) {
            let why =
                "the reference device takes no part in programs of others: read the values and make a tensor of them";
            return Tensor::mistake_in(&[self], Error::new("to", Problem::Argument(why.into()), site), ty);
        }
        Tensor::record_at(ToDevice, &[self], ty, site)
    }
}
