//! Weaves the changes of a file into its text, each behind a switch: one build holds all of them, and
//! each run of the tests makes the one that it is asked for.
//!
//! What the compiler works out, a constant or the length of an array, cannot depend on a switch; nor
//! can a function that returns some type without saying which. Those changes are left out.

use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Expr, ReturnType, Signature};

use crate::Result;
use crate::list::{Change, Genre};

/// What a change puts around a part of the text.
#[derive(Debug)]
pub struct Edit {
    pub id: usize,
    range: Range<usize>,
    before: String,
    after: String,
}

/// A text with its changes.
pub struct Woven {
    pub text: String,
    /// What was put in: its bytes, and the change that it belongs to.
    owners: Vec<(Range<usize>, usize)>,
}

impl Woven {
    /// The change that an error of the compiler at these bytes is about, if it is about any.
    pub fn owner(&self, at: &Range<usize>) -> Option<usize> {
        let within = |range: &Range<usize>| range.start <= at.start && at.end <= range.end;
        let own = self.owners.iter().find(|(range, _)| within(range));
        own.map(|(_, id)| *id).or_else(|| self.around(at.start))
    }

    /// The change that goes around this byte, the narrowest if there are several.
    fn around(&self, at: usize) -> Option<usize> {
        let opened = self
            .owners
            .iter()
            .enumerate()
            .filter_map(|(index, (opening, id))| {
                let closing = self.owners[index + 1..]
                    .iter()
                    .find(|(_, other)| other == id);
                let end = closing?.0.end;
                (opening.start <= at && at <= end).then_some((end - opening.start, *id))
            });
        opened.min().map(|(_, id)| id)
    }
}

/// The edits for those of `changes`, all of the file with this text, that a switch can make.
pub fn edits(text: &str, changes: &[&Change]) -> Result<Vec<Edit>> {
    let file = syn::parse_file(text)?;
    let mut weaver = Weaver {
        text,
        changes,
        is_constant: false,
        has_rest: false,
        edits: Vec::new(),
    };
    weaver.visit_file(&file);
    Ok(weaver.edits)
}

/// The text with `edits`.
pub fn weave(text: &str, edits: &[Edit]) -> Woven {
    // At one place what closes comes first, from the inside, then what is only put in, and then what
    // opens, from the outside.
    let mut pieces = Vec::new();
    for (index, edit) in edits.iter().enumerate() {
        let Range { start, end } = edit.range;
        if start == end {
            pieces.push(((start, 1, 0, index), &edit.before, edit.id));
        } else {
            let (opens, closes) = (usize::MAX - end, usize::MAX - start);
            pieces.push(((start, 2, opens, index), &edit.before, edit.id));
            pieces.push(((end, 0, closes, usize::MAX - index), &edit.after, edit.id));
        }
    }
    pieces.sort();
    let mut woven = Woven {
        text: String::new(),
        owners: Vec::new(),
    };
    let mut done = 0;
    for ((at, ..), piece, id) in pieces {
        woven.text.push_str(&text[done..at]);
        done = at;
        let start = woven.text.len();
        woven.text.push_str(piece);
        woven.owners.push((start..woven.text.len(), id));
    }
    woven.text.push_str(&text[done..]);
    woven
}

struct Weaver<'a> {
    text: &'a str,
    changes: &'a [&'a Change],
    /// Whether the compiler works out what is visited.
    is_constant: bool,
    /// Whether the match that is visited has an arm for all that its others leave.
    has_rest: bool,
    edits: Vec<Edit>,
}

impl<'a> Weaver<'a> {
    /// The changes of a kind whose place is that of `span`.
    fn at(&self, genre: Genre, span: Span) -> Vec<&'a Change> {
        let place = span.byte_range();
        self.of(genre, |change| change.place == place)
    }

    fn of(&self, genre: Genre, is_meant: impl Fn(&Change) -> bool) -> Vec<&'a Change> {
        let changes = self.changes.iter().copied().filter(|_| !self.is_constant);
        changes
            .filter(|change| change.genre == genre && is_meant(change))
            .collect()
    }

    fn insert(&mut self, change: &Change, at: usize, text: String) {
        self.edits.push(Edit {
            id: change.id,
            range: at..at,
            before: text,
            after: String::new(),
        });
    }

    /// Puts `changed` in the place of `range` where the change is made.
    fn choose(&mut self, change: &Change, range: Range<usize>, changed: &str) {
        let condition = is_on(change);
        self.edits.push(Edit {
            id: change.id,
            range,
            before: format!("(if {condition} {{ {changed} }} else {{ "),
            after: " })".to_owned(),
        });
    }

    /// The same for an expression of which the change replaces a part.
    fn choose_part(&mut self, change: &Change, whole: Range<usize>) {
        let before = &self.text[whole.start..change.place.start];
        let after = &self.text[change.place.end..whole.end];
        let changed = format!("{before} {} {after}", change.replacement);
        self.choose(change, whole, &changed);
    }

    fn constant(&mut self, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.is_constant, true);
        visit(self);
        self.is_constant = outside;
    }

    fn function(&mut self, sig: &Signature, body: &syn::Block, visit: impl FnOnce(&mut Self)) {
        if sig.constness.is_some() {
            return self.constant(visit);
        }
        if let (Some(first), Some(last)) = (body.stmts.first(), body.stmts.last())
            && !names_no_type(&sig.output)
        {
            let place = first.span().byte_range().start..last.span().byte_range().end;
            for change in self.of(Genre::FnValue, |change| change.place == place) {
                let (condition, value) = (is_on(change), &change.replacement);
                let text = format!("if {condition} {{ return {value}; }} ");
                self.insert(change, place.start, text);
            }
        }
        visit(self);
    }
}

fn is_on(change: &Change) -> String {
    format!("crate::mutants_switch::is_on({})", change.id)
}

/// Whether a function says of what it returns only what that can do.
fn names_no_type(output: &ReturnType) -> bool {
    struct Found(bool);
    impl Visit<'_> for Found {
        fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut found = Found(false);
    found.visit_return_type(output);
    found.0
}

/// Whether a pattern that is a single name takes all, as a new name does, and is no variant or constant.
fn is_new_name(name: &syn::Ident) -> bool {
    name.to_string()
        .starts_with(|first: char| !first.is_uppercase())
}

/// Whether a condition binds something, so that it cannot be put into parentheses.
fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(both) => binds(&both.left) || binds(&both.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Weaver<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block, |this| {
            visit::visit_item_fn(this, item)
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block, |this| {
            visit::visit_impl_item_fn(this, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.sig, body, |this| {
                visit::visit_trait_item_fn(this, item)
            });
        }
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(|this| visit::visit_item_const(this, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(|this| visit::visit_item_static(this, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(|this| visit::visit_impl_item_const(this, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.constant(|this| visit::visit_trait_item_const(this, item));
    }

    fn visit_type(&mut self, item: &'ast syn::Type) {
        self.constant(|this| visit::visit_type(this, item));
    }

    fn visit_variant(&mut self, item: &'ast syn::Variant) {
        self.constant(|this| visit::visit_variant(this, item));
    }

    fn visit_generic_argument(&mut self, item: &'ast syn::GenericArgument) {
        self.constant(|this| visit::visit_generic_argument(this, item));
    }

    fn visit_expr_const(&mut self, item: &'ast syn::ExprConst) {
        self.constant(|this| visit::visit_expr_const(this, item));
    }

    fn visit_expr_repeat(&mut self, item: &'ast syn::ExprRepeat) {
        self.visit_expr(&item.expr);
        self.constant(|this| this.visit_expr(&item.len));
    }

    fn visit_pat(&mut self, item: &'ast syn::Pat) {
        self.constant(|this| visit::visit_pat(this, item));
    }

    fn visit_expr_binary(&mut self, item: &'ast syn::ExprBinary) {
        if !binds(&item.left) && !binds(&item.right) {
            for change in self.at(Genre::BinaryOperator, item.op.span()) {
                self.choose_part(change, item.span().byte_range());
            }
        }
        visit::visit_expr_binary(self, item);
    }

    fn visit_expr_unary(&mut self, item: &'ast syn::ExprUnary) {
        for change in self.at(Genre::UnaryOperator, item.op.span()) {
            self.choose_part(change, item.span().byte_range());
        }
        visit::visit_expr_unary(self, item);
    }

    fn visit_expr_struct(&mut self, item: &'ast syn::ExprStruct) {
        for field in &item.fields {
            let start = field.span().byte_range().start;
            for change in self.of(Genre::StructField, |change| change.place.start == start) {
                self.choose_part(change, item.span().byte_range());
            }
        }
        visit::visit_expr_struct(self, item);
    }

    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        self.visit_expr(&item.expr);
        for arm in &item.arms {
            // Set for each arm anew, since there may be a match within one.
            self.has_rest = item.arms.iter().any(|arm| {
                let takes_all = match &arm.pat {
                    syn::Pat::Wild(_) => true,
                    syn::Pat::Ident(name) => is_new_name(&name.ident),
                    _ => false,
                };
                takes_all && arm.guard.is_none()
            });
            self.visit_arm(arm);
        }
    }

    fn visit_arm(&mut self, item: &'ast syn::Arm) {
        let guard = item.guard.as_ref().map(|(_, guard)| guard);
        let guard_is_plain = guard.is_some_and(|guard| !binds(guard));
        let deleted = match self.has_rest {
            true => self.at(Genre::MatchArm, item.span()),
            false => Vec::new(),
        };
        for change in deleted {
            let condition = format!("!{}", is_on(change));
            match guard {
                Some(guard) if guard_is_plain => self.edits.push(Edit {
                    id: change.id,
                    range: guard.span().byte_range(),
                    before: format!("{condition} && ("),
                    after: ")".to_owned(),
                }),
                Some(guard) => {
                    let start = guard.span().byte_range().start;
                    self.insert(change, start, format!("{condition} && "));
                }
                None => {
                    let end = item.pat.span().byte_range().end;
                    self.insert(change, end, format!(" if {condition}"));
                }
            }
        }
        if let Some(guard) = guard.filter(|_| guard_is_plain) {
            for change in self.at(Genre::MatchArmGuard, guard.span()) {
                self.choose(change, guard.span().byte_range(), &change.replacement);
            }
        }
        visit::visit_arm(self, item);
    }
}
