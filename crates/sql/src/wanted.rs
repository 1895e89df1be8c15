//! The partitions and offsets that the filters of a scan let through. A streamed tail does not decode the others.

use std::ops::RangeInclusive;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use floe_schema::names;

/// Partitions and offsets. The engine applies the filters again, so they may be too many, but not too few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) partitions: RangeInclusive<i64>,
    pub(crate) offsets: RangeInclusive<i64>,
}

impl Wanted {
    /// What all of `filters` let through.
    pub(crate) fn by(filters: &[Expr]) -> Wanted {
        let mut wanted = Wanted { partitions: 0..=i64::MAX, offsets: 0..=i64::MAX };
        for filter in filters.iter().flat_map(split_conjunction) {
            let Some((name, range)) = range(filter) else { continue };
            match name {
                names::PARTITION => wanted.partitions = both(&wanted.partitions, &range),
                names::OFFSET => wanted.offsets = both(&wanted.offsets, &range),
                _ => {}
            }
        }
        wanted
    }
}

fn both(a: &RangeInclusive<i64>, b: &RangeInclusive<i64>) -> RangeInclusive<i64> {
    *a.start().max(b.start())..=*a.end().min(b.end())
}

/// The column of a comparison with a whole number, and the numbers that it lets through.
fn range(filter: &Expr) -> Option<(&str, RangeInclusive<i64>)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let (column, operator, number) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(number, _)) => (column, *op, number),
        (Expr::Literal(number, _), Expr::Column(column)) => (column, op.swap()?, number),
        _ => return None,
    };
    if !number.data_type().is_integer() {
        return None;
    }
    let ScalarValue::Int64(Some(number)) = number.cast_to(&DataType::Int64).ok()? else { return None };
    let range = match operator {
        Operator::Eq => number..=number,
        Operator::Gt => number.saturating_add(1)..=i64::MAX,
        Operator::GtEq => number..=i64::MAX,
        Operator::Lt => 0..=number.saturating_sub(1),
        Operator::LtEq => 0..=number,
        _ => return None,
    };
    Some((column.name(), range))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn filters_bound_partitions_and_offsets() {
        let check = |filters: &[Expr], partitions: RangeInclusive<i64>, offsets: RangeInclusive<i64>| {
            assert_eq!(Wanted::by(filters), Wanted { partitions, offsets }, "{filters:?}");
        };
        let (partition, offset) = (|| col("_partition_id"), || col("_offset"));
        let all = 0..=i64::MAX;
        check(&[], all.clone(), all.clone());
        check(&[partition().eq(lit(3_i32))], 3..=3, all.clone());
        check(&[offset().gt(lit(10_i64)), lit(20_i64).gt_eq(offset())], all.clone(), 11..=20);
        check(&[partition().lt(lit(2_i32)).and(offset().lt_eq(lit(9_i64)))], 0..=1, 0..=9);
        check(&[offset().gt(lit(i64::MAX))], all.clone(), i64::MAX..=i64::MAX);
        for other in [
            col("n").eq(lit(1_i64)),
            offset().not_eq(lit(1_i64)),
            offset().gt(lit(1.5)),
            offset().gt(lit(1_i64)).or(partition().eq(lit(1_i32))),
            offset().gt(lit(ScalarValue::Int64(None))),
        ] {
            check(&[other], all.clone(), all.clone());
        }
    }
}
