//! Windows that build on a window of the WINDOW clause (SQL:2016, 7.15): `OVER (w ORDER BY x)` has the partitions of
//! `w`.
//!
//! The engine forgets them, and knows windows by name in the list of columns alone. So here each use of a name becomes
//! the window itself.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, OrderBy, Query, Select, SetExpr, WindowSpec,
    WindowType,
};

use super::using::folded;
use crate::trees::{self, Visitor};

/// Writes the windows of a query where their names are.
pub(super) fn inline(query: &mut Query) -> Result<(), String> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    if select.named_window.is_empty() {
        return Ok(());
    }
    let mut uses = Uses { known: definitions(select)?, depth: 0 };
    match uses.of(select, &mut query.order_by) {
        ControlFlow::Break(message) => Err(message),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The windows of a WINDOW clause, each with what it takes from those before it.
fn definitions(select: &mut Select) -> Result<Vec<(Ident, WindowSpec)>, String> {
    let mut known = Vec::new();
    for NamedWindowDefinition(name, window) in &mut select.named_window {
        let spec = match window {
            NamedWindowExpr::WindowSpec(spec) => {
                build(spec, &known)?;
                spec.clone()
            }
            NamedWindowExpr::NamedWindow(other) => {
                let Some(spec) = find(&known, other) else { continue };
                spec.clone()
            }
        };
        *window = NamedWindowExpr::WindowSpec(spec.clone());
        known.push((name.clone(), spec));
    }
    Ok(known)
}

fn find<'a>(known: &'a [(Ident, WindowSpec)], name: &Ident) -> Option<&'a WindowSpec> {
    known.iter().find(|(other, _)| folded(other) == folded(name)).map(|(_, spec)| spec)
}

/// Takes the partitions and the order of the window that a window names.
fn build(spec: &mut WindowSpec, known: &[(Ident, WindowSpec)]) -> Result<(), String> {
    let Some(name) = &spec.window_name else { return Ok(()) };
    // The engine says that it does not know a window.
    let Some(base) = find(known, name) else { return Ok(()) };
    if !spec.partition_by.is_empty() || !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return Err(format!("a window over '{name}' cannot replace its PARTITION BY or its ORDER BY"));
    }
    spec.partition_by.clone_from(&base.partition_by);
    if spec.order_by.is_empty() {
        spec.order_by.clone_from(&base.order_by);
    }
    if spec.window_frame.is_none() {
        spec.window_frame.clone_from(&base.window_frame);
    }
    spec.window_name = None;
    Ok(())
}

struct Uses {
    known: Vec<(Ident, WindowSpec)>,
    /// Depth of subqueries. They have windows of their own.
    depth: usize,
}

impl Uses {
    /// Visits the parts of a query that may have windows.
    fn of(&mut self, select: &mut Select, order_by: &mut Option<OrderBy>) -> ControlFlow<String> {
        trees::visit(&mut select.projection, self)?;
        trees::visit(&mut select.qualify, self)?;
        trees::visit(order_by, self)
    }
}

impl Visitor for Uses {
    fn before_query(&mut self, _: &mut Query) -> ControlFlow<String> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn after_query(&mut self, _: &mut Query) -> ControlFlow<String> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn before_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        match &mut function.over {
            Some(WindowType::WindowSpec(spec)) => {
                if let Err(message) = build(spec, &self.known) {
                    return ControlFlow::Break(message);
                }
            }
            Some(window @ WindowType::NamedWindow(_)) => {
                if let WindowType::NamedWindow(name) = window
                    && let Some(spec) = find(&self.known, name)
                {
                    *window = WindowType::WindowSpec(spec.clone());
                }
            }
            None => {}
        }
        ControlFlow::Continue(())
    }
}
