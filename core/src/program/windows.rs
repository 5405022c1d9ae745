//! What a device computes that takes the largest of windows beside each other as one thing. Owns the description.

use tapeflow_ir::DType;

/// Windows that do not overlap, over planes of contiguous elements; all operands are contiguous.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// Of the elements; f32 or f64. Numbers of taps are i32.
    pub dtype: DType,
    /// What is computed.
    pub part: WindowsPart,
    /// How many.
    pub planes: usize,
    /// Numbers that are added to the elements before they are compared, as many as there are, to plane p that of
    /// `p mod shifts`; 0: none.
    pub shifts: usize,
    /// Of a plane: rows, columns.
    pub axes: [WindowAxis; 2],
}

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowsPart {
    /// Operands elements (and shifts) → places: the largest of each window; NaN wins.
    Max,
    /// Operands elements (and shifts) → places: the number of its tap, i32, the first of equal ones; of several NaNs
    /// the last.
    Which,
    /// Operands places, numbers → elements: each element is the value of its window if the number is that of its tap,
    /// and 0 otherwise.
    Place,
    /// Operands places, elements (and shifts) → elements: `Place` of the numbers that `Which` has for these elements.
    Return,
}

/// Windows along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowAxis {
    /// Elements of a plane.
    pub extent: usize,
    /// Windows; for `Place` and `Return` enough to reach every element.
    pub places: usize,
    /// Elements of a window, at most the stride.
    pub kernel: usize,
    /// From window to window. A tap (y, x) has the number `y · stride of columns + x`.
    pub stride: usize,
}

impl Windows {
    /// Whether windows lie in the planes and do not overlap, and nothing is added to what is placed.
    pub fn is_well_formed(&self) -> bool {
        let plain = self.shifts == 0 || self.part != WindowsPart::Place;
        plain
            && self.axes.iter().all(|axis| {
                let (gives, takes) = match self.part {
                    WindowsPart::Place => (true, false),
                    WindowsPart::Return => (true, true),
                    _ => (false, true),
                };
                (!gives || axis.places * axis.stride >= axis.extent)
                    && (!takes || axis.places == 0 || (axis.places - 1) * axis.stride + axis.kernel <= axis.extent)
                    && axis.kernel > 0
                    && axis.kernel <= axis.stride
            })
    }
}
