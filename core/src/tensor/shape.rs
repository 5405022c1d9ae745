//! Shapes, axes and ranges: what the user writes where an operation takes a size, an axis or a part of an axis.
//! Owns broadcasting and the normalisation of negative axes; knows no tensors.

use std::fmt;
use std::ops::{Bound, Deref, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo};

use smallvec::SmallVec;

use crate::error::Problem;
use crate::program::kernel::Dims;

/// The extents of a tensor, outermost first. `()` is a scalar.
#[derive(PartialEq, Eq, Hash, Default)]
pub struct Shape(pub(crate) Dims);

impl Clone for Shape {
    fn clone(&self) -> Shape {
        // All extents at once: a list's own clone takes them one by one, and every recording makes several.
        Shape(Dims::from_slice(&self.0))
    }
}

impl Shape {
    /// How many elements: the product of the extents, 1 for a scalar. Of a shape that no tensor can have it saturates.
    pub fn numel(&self) -> usize {
        self.0.iter().fold(1, |n: usize, &d| n.saturating_mul(d))
    }

    /// Whether elements of `size` bytes have offsets an address can have, on every axis: beside an axis of 0 too,
    /// strides must not overflow.
    pub(crate) fn is_addressable(&self, size: usize) -> bool {
        let bytes = self.0.iter().try_fold(size, |n, &d| n.checked_mul(d.max(1)));
        bytes.is_some_and(|n| n <= isize::MAX as usize)
    }

    /// The shape both broadcast to under NumPy's rule: aligned at the last axis, extents equal or 1.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        if self == other {
            return Some(self.clone());
        }
        let (long, short) = if self.len() >= other.len() { (self, other) } else { (other, self) };
        let mut out = long.clone();
        let skip = long.len() - short.len();
        for (o, &s) in out.0[skip..].iter_mut().zip(short.iter()) {
            *o = match (*o, s) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Some(out)
    }

    pub(crate) fn axis(&self, axis: isize) -> Result<usize, Problem> {
        let n = self.len() as isize;
        if axis < -n || axis >= n {
            return Err(Problem::Axis { axis, shape: self.clone() });
        }
        Ok(if axis < 0 { axis + n } else { axis } as usize)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str(if self.0.len() == 1 { ",)" } else { ")" })
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Shape {
        Shape(Dims::from_slice(dims))
    }
}
impl From<&Vec<usize>> for Shape {
    fn from(dims: &Vec<usize>) -> Shape {
        Shape(Dims::from_slice(dims))
    }
}
impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Shape {
        Shape(Dims::from_vec(dims))
    }
}
impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape(Dims::from_slice(&dims))
    }
}
impl<const N: usize> From<&[usize; N]> for Shape {
    fn from(dims: &[usize; N]) -> Shape {
        Shape(Dims::from_slice(dims))
    }
}
impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Shape {
        shape.clone()
    }
}
impl From<usize> for Shape {
    fn from(n: usize) -> Shape {
        Shape(Dims::from_slice(&[n]))
    }
}
impl From<()> for Shape {
    fn from((): ()) -> Shape {
        Shape::default()
    }
}

/// The target of `reshape`: one extent may be `-1`, meaning what is left.
pub trait IntoExtents {
    /// The extents as written.
    fn into_extents(self) -> SmallVec<[isize; 6]>;
}

/// A list of axes; negative ones count from the end. `..` is every axis.
pub trait IntoAxes {
    /// The axes as written; `None` is every axis.
    fn into_axes(self) -> Option<SmallVec<[isize; 6]>>;
}

impl IntoExtents for &Shape {
    fn into_extents(self) -> SmallVec<[isize; 6]> {
        self.iter().map(|&d| d as isize).collect()
    }
}
impl IntoExtents for Shape {
    fn into_extents(self) -> SmallVec<[isize; 6]> {
        (&self).into_extents()
    }
}
impl IntoAxes for RangeFull {
    fn into_axes(self) -> Option<SmallVec<[isize; 6]>> {
        None
    }
}

macro_rules! integer_lists {
    ($($t:ty),*) => {$(
        impl<const N: usize> IntoExtents for [$t; N] {
            fn into_extents(self) -> SmallVec<[isize; 6]> {
                self.iter().map(|&d| d as isize).collect()
            }
        }
        impl IntoExtents for &[$t] {
            fn into_extents(self) -> SmallVec<[isize; 6]> {
                self.iter().map(|&d| d as isize).collect()
            }
        }
        impl IntoExtents for Vec<$t> {
            fn into_extents(self) -> SmallVec<[isize; 6]> {
                self.iter().map(|&d| d as isize).collect()
            }
        }
        impl<const N: usize> IntoAxes for [$t; N] {
            fn into_axes(self) -> Option<SmallVec<[isize; 6]>> {
                Some(self.iter().map(|&d| d as isize).collect())
            }
        }
        impl IntoAxes for &[$t] {
            fn into_axes(self) -> Option<SmallVec<[isize; 6]>> {
                Some(self.iter().map(|&d| d as isize).collect())
            }
        }
        impl IntoAxes for $t {
            fn into_axes(self) -> Option<SmallVec<[isize; 6]>> {
                Some(SmallVec::from_slice(&[self as isize]))
            }
        }
    )*};
}
integer_lists!(i32, isize, usize);

/// A part of an axis: `..`, `a..b`, `a..`, `..b`, `a..=b`; negative ends count from the end, as in NumPy.
pub trait IntoRange {
    /// First element and one past the last, both as written; `None` is the axis's own end.
    fn into_range(self) -> (Option<isize>, Option<isize>);
}

/// An end as written. One that no `isize` holds lies beyond every axis; it must not wrap around and count from the end.
fn to_isize<T: TryInto<isize>>(end: T) -> isize {
    end.try_into().unwrap_or(isize::MAX)
}

fn bounds<T: Copy>(range: impl RangeBounds<T>, cast: impl Fn(T) -> isize) -> (Option<isize>, Option<isize>) {
    let start = match range.start_bound() {
        Bound::Included(&s) => Some(cast(s)),
        Bound::Excluded(&s) => Some(cast(s).saturating_add(1)),
        Bound::Unbounded => None,
    };
    let end = match range.end_bound() {
        // `..=-1` ends with the last element, not before the first.
        Bound::Included(&e) => Some(cast(e)).and_then(|e| if e == -1 { None } else { Some(e.saturating_add(1)) }),
        Bound::Excluded(&e) => Some(cast(e)),
        Bound::Unbounded => None,
    };
    (start, end)
}

impl IntoRange for RangeFull {
    fn into_range(self) -> (Option<isize>, Option<isize>) {
        (None, None)
    }
}

macro_rules! integer_ranges {
    ($($t:ty),*) => {$(
        impl IntoRange for Range<$t> {
            fn into_range(self) -> (Option<isize>, Option<isize>) { bounds(self, to_isize) }
        }
        impl IntoRange for RangeFrom<$t> {
            fn into_range(self) -> (Option<isize>, Option<isize>) { bounds(self, to_isize) }
        }
        impl IntoRange for RangeTo<$t> {
            fn into_range(self) -> (Option<isize>, Option<isize>) { bounds(self, to_isize) }
        }
        impl IntoRange for RangeInclusive<$t> {
            fn into_range(self) -> (Option<isize>, Option<isize>) { bounds(self, to_isize) }
        }
    )*};
}
integer_ranges!(i32, isize, usize);

/// Resolves a written range on an axis of `extent`; `None` if it leaves the axis or runs backwards.
pub(crate) fn resolve_range(range: (Option<isize>, Option<isize>), extent: usize) -> Option<(usize, usize)> {
    let end_of = |v: isize| if v < 0 { v + extent as isize } else { v };
    let start = end_of(range.0.unwrap_or(0));
    let end = end_of(range.1.unwrap_or(extent as isize));
    (0 <= start && start <= end && end <= extent as isize).then_some((start as usize, end as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape<const N: usize>(dims: [usize; N]) -> Shape {
        Shape::from(dims)
    }

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(shape([3, 1]).broadcast(&shape([4])), Some(shape([3, 4])));
        assert_eq!(shape([2, 1, 5]).broadcast(&shape([7, 1])), Some(shape([2, 7, 5])));
        assert_eq!(shape([0]).broadcast(&shape([1])), Some(shape([0])));
        assert_eq!(shape([]).broadcast(&shape([2, 2])), Some(shape([2, 2])));
        assert_eq!(shape([2]).broadcast(&shape([3])), None);
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)] // they are what is tested
    fn ranges_resolve_as_in_numpy() {
        assert_eq!(resolve_range((1..3).into_range(), 5), Some((1, 3)));
        assert_eq!(resolve_range((-2..).into_range(), 5), Some((3, 5)));
        assert_eq!(resolve_range((..-1).into_range(), 5), Some((0, 4)));
        let (to_last, backwards) = (0..=-1, 3..2);
        assert_eq!(resolve_range(to_last.into_range(), 5), Some((0, 5)));
        assert_eq!(resolve_range((..).into_range(), 0), Some((0, 0)));
        assert_eq!(resolve_range((2..9).into_range(), 5), None);
        assert_eq!(resolve_range(backwards.into_range(), 5), None);
        assert_eq!(resolve_range((1..usize::MAX).into_range(), 5), None);
        assert_eq!(resolve_range((0..=isize::MAX).into_range(), 5), None);
    }

    #[test]
    fn shapes_print_as_python_tuples() {
        assert_eq!(format!("{} {} {}", shape([]), shape([3]), shape([2, 3])), "() (3,) (2, 3)");
    }
}
