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

        fn template(to: DType) -> &'static Template {
            match to { $(DType::$dtype => &$name),* }
        }
    };
}
casts!(BOOL = Bool, U8 = U8, I32 = I32, U32 = U32, I64 = I64, F32 = F32, F64 = F64);

impl Tensor {
    /// The elements as `dtype`. Float to integer truncates and saturates, NaN becomes 0; to bool is `!= 0`.
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
