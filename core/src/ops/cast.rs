//! Casts between dtypes.

use tapeflow_ir::{DType, Extent, Hole, Template, TemplateInput, TemplateRow};

use super::kernel::map;
use crate::tensor::Tensor;

const INPUT: [TemplateInput; 1] = [TemplateInput { name: "x", ty: Hole::Kernel, extent: Extent::Lane }];

macro_rules! casts {
    ($($name:ident = $dtype:ident),*) => {
        $(static $name: Template = Template {
            name: "cast",
            row: false,
            inputs: &INPUT,
            rows: &[TemplateRow::Input(0), TemplateRow::Cast(0, Hole::Fixed(DType::$dtype))],
            outputs: &[1],
        };)*

        /// The conversion to a dtype.
        pub(crate) fn template(to: DType) -> &'static Template {
            match to { $(DType::$dtype => &$name),* }
        }
    };
}
casts!(BOOL = Bool, U8 = U8, I32 = I32, U32 = U32, I64 = I64, F16 = F16, BF16 = BF16, F32 = F32, F64 = F64);

impl Tensor {
    /// The elements as `dtype`. Float to integer truncates and saturates, NaN becomes 0; to bool is `!= 0`.
    ///
    /// # Numerics
    /// To f16 and bf16 it rounds to nearest, ties to even; what is beyond the largest f16, 65504, becomes ∞. From f64
    /// and integers they are reached through f32, as in PyTorch.
    ///
    /// # Gradient
    /// Passes between floats; through integers it is an error unless detached.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype {
            return self.clone();
        }
        let [out] = map(template(dtype), &[self]);
        out
    }
}
