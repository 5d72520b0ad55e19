"""Compiled programs read from text, on snippets whose numbers are worked out by hand."""

import textwrap

import pytest

from lmirl_jax.compilation import hlo
from lmirl_jax.compilation.collectives import Traffic, axes_of, find_traffic, first_group
from lmirl_jax.compilation.loops import Runs, count_runs
from lmirl_jax.compilation.memory_traffic import hbm_bytes
from lmirl_jax.compilation.products import matrix_flops

# Five turns of a product of [4, 8] and [8, 8], and in each two turns of an inner loop whose bound the outer state carries.
LOOPS = """
HloModule jit_update, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_body (s: (s32[], f32[4,8], s32[])) -> (s32[], f32[4,8], s32[]) {
  %s = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}, s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%s), index=1
  %bound = s32[] get-tuple-element(%s), index=2
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %square = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  ROOT %t = (s32[], f32[4,8]{1,0}, s32[]) tuple(%next, %x, %bound)
}

%inner_condition (s: (s32[], f32[4,8], s32[])) -> pred[] {
  %s = (s32[], f32[4,8]{1,0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %bound = s32[] get-tuple-element(%s), index=2
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%body (s: (s32[], f32[4,8], f32[8,8], s32[])) -> (s32[], f32[4,8], f32[8,8], s32[]) {
  %s = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%s), index=1
  %w = f32[8,8]{1,0} get-tuple-element(%s), index=2
  %four = s32[] get-tuple-element(%s), index=3
  %zero = s32[] constant(0)
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %y = f32[4,8]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="rematted_computation"}
  %start = (s32[], f32[4,8]{1,0}, s32[]) tuple(%zero, %y, %four)
  %inner = (s32[], f32[4,8]{1,0}, s32[]) while(%start), condition=%inner_condition, body=%inner_body
  %z = f32[4,8]{1,0} get-tuple-element(%inner), index=1
  ROOT %t = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}, s32[]) tuple(%next, %z, %w, %four)
}

%condition (s: (s32[], f32[4,8], f32[8,8], s32[])) -> pred[] {
  %five = s32[] constant(6)
  %s = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %lt = pred[] compare(%i, %five), direction=LT
}

ENTRY %main (x: f32[4,8], w: f32[8,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %w = f32[8,8]{1,0} parameter(1)
  %one = s32[] constant(1)
  %four = s32[] constant(4)
  %start = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}, s32[]) tuple(%one, %x, %w, %four)
  %loop = (s32[], f32[4,8]{1,0}, f32[8,8]{1,0}, s32[]) while(%start), condition=%condition, body=%body
  ROOT %out = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def program(lines: str, parameters: str = "") -> hlo.Module:
    """A program of one computation."""
    return hlo.parse(
        f"HloModule m\n\nENTRY %main ({parameters}) -> f32[] {{\n{textwrap.indent(lines, '  ')}\n}}\n"
    )


def flops_of(lines: str) -> float:
    module = program(lines)
    return matrix_flops(module, count_runs(module))


def test_shapes():
    assert hlo.arrays_of("bf16[16,512]{1,0:T(8,128)(2,1)S(1)}") == (
        hlo.Array("bf16", (16, 512), on_chip=True),
    )
    first, second = hlo.arrays_of("(f32[2,/*index=1*/3]{1,0}, s32[])")
    assert (first.dims, first.bytes, second.dims, second.bytes) == ((2, 3), 24, (), 4)
    assert hlo.Array("s4", (3,)).bytes == 2 and hlo.Array("pred", (5,)).bytes == 5
    assert hlo.Array("f8e4m3fn", (7,)).bytes == 7


def test_loops_turn_as_often_as_their_conditions_say():
    module = hlo.parse(LOOPS)
    runs = count_runs(module)
    # From 1 to below 6; inside, 0 and 2 are below 4.
    assert (runs.counts["body"], runs.counts["condition"]) == (5, 6)
    assert (runs.counts["inner_body"], runs.counts["inner_condition"]) == (10, 15)
    assert runs.data_dependent == ()
    products = 5 * 2 * 4 * 8 * 8, 10 * 2 * 4 * 4 * 8
    assert matrix_flops(module, runs) == sum(products)
    assert matrix_flops(module, runs, only="rematted_computation") == products[0]


# Layers with a window and layers without one, in one scan: each turn takes one of the two branches.
BRANCHES = """
%narrow (x: f32[4,8]) -> f32[4,4] {
  %x = f32[4,8]{1,0} parameter(0)
  ROOT %square = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

%wide (x: f32[4,8]) -> f32[4,4] {
  %x = f32[4,8]{1,0} parameter(0)
  %y = f32[4,8]{1,0} add(%x, %x)
  ROOT %square = f32[4,4]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

ENTRY %main (x: f32[4,8], which: s32[]) -> f32[4,4] {
  %x = f32[4,8]{1,0} parameter(0)
  %which = s32[] parameter(1)
  ROOT %z = f32[4,4]{1,0} conditional(%which, %x, %x), branch_computations={%narrow, %wide}
}
"""


def test_one_branch_of_a_conditional_runs():
    module = hlo.parse(BRANCHES)
    runs = count_runs(module)
    assert runs.counts == {"main": 1, "wide": 1}
    assert matrix_flops(module, runs) == 2 * 4 * 4 * 8


def test_the_number_that_the_compiler_notes_comes_first():
    noted = LOOPS.replace(
        "condition=%condition, body=%body",
        'condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"9"}}',
    )
    assert count_runs(hlo.parse(noted)).counts["body"] == 9


def test_a_bound_that_depends_on_data_is_the_callers():
    unknown = LOOPS.replace("%four = s32[] constant(4)", "%four = s32[] custom-call()")
    runs = count_runs(hlo.parse(unknown), data_dependent_turns=7)
    assert runs.counts["inner_body"] == 35 and runs.data_dependent == ("inner",)


def test_a_bound_beside_another_condition_is_the_most():
    both = LOOPS.replace(
        "ROOT %lt = pred[] compare(%i, %five), direction=LT",
        "%lt = pred[] compare(%i, %five), direction=LT\n  %go = pred[] custom-call(%s)\n  ROOT %and = pred[] and(%lt, %go)",
    )
    assert count_runs(hlo.parse(both)).counts["body"] == 5


@pytest.mark.parametrize(
    ("shapes", "attributes", "products"),
    [
        # A product of [16, 768] and [768, 64].
        (("16,768", "768,64", "16,64"), "dim_labels=bf_io->bf", 16 * 768 * 64),
        # Six heads of 64 as a window of 6 places.
        (
            ("4,32,6,64", "6,64,768,4", "1,32,768,1"),
            "window={size=4x6}, dim_labels=0b1f_1io0->0bf1",
            32 * 768 * 6 * 64 * 4,
        ),
        # A batch of 3 x 5 products of [7, 4] and [4, 9], as a window over gaps: one place of each window falls on a number.
        (
            ("3,5,7,4", "3,5,9,4", "3,5,7,9"),
            "window={size=3x5 stride=2x4 lhs_dilate=3x5}, dim_labels=01bf_01oi->01bf",
            3 * 5 * 7 * 9 * 4,
        ),
        # The same with padding in place of gaps at the ends.
        (
            ("3,5,7,4", "3,5,4,9", "3,5,7,9"),
            "window={size=3x5 stride=3x5 pad=2_2x4_4 lhs_dilate=2x4 rhs_reversal=1x1}, dim_labels=01bf_01io->01bf",
            3 * 5 * 7 * 9 * 4,
        ),
        # A plain convolution over 10 places, window 3, no padding: 8 places out.
        (("2,10,4", "3,4,6", "2,8,6"), "window={size=3}, dim_labels=b0f_0io->b0f", 2 * 8 * 3 * 4 * 6),
        # With padding of 1 on each side, two places of the 10 x 3 fall on padding.
        (("2,10,4", "3,4,6", "2,10,6"), "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f", 2 * 28 * 4 * 6),
    ],
    ids=["product", "heads", "batch", "padded batch", "convolution", "padded convolution"],
)
def test_products_that_are_written_as_convolutions(shapes, attributes, products):
    left, right, out = shapes
    lines = f"""%x = bf16[{left}]{{1,0}} parameter(0)
%w = bf16[{right}]{{1,0}} parameter(1)
ROOT %y = f32[{out}]{{1,0}} convolution(%x, %w), {attributes}"""
    assert flops_of(lines) == 2 * products


def test_kernels_count_what_they_declare():
    declared = (
        '%k = f32[2]{0} custom-call(), custom_call_target="tpu_custom_call", backend_config={"flops":"1200"}'
    )
    assert (
        flops_of(declared + '\nROOT %other = f32[2]{0} custom-call(), custom_call_target="Sharding"') == 1200
    )


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,3},{1,2}}, dimensions={0}", [0, 3]),
        ("replica_groups=[2,4]<=[8], use_global_device_ids=true", [0, 1, 2, 3]),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", [0, 2, 4, 6]),
        ("replica_groups=[4,2]<=[2,2,2]T(2,1,0)", [0, 4]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", [0, 2, 4, 6]),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}, to_apply=%add", [0, 1]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}", [0, 2]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(1)2,'b'}", [0, 1, 4, 5]),
        (
            "replica_groups=mesh['a'=2,'b'=1,'c'=4], device_ids=([4,2]T(1,0)) {'a'}, use_global_device_ids=true",
            [0, 1],
        ),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=4], device_ids=([4,2]T(1,0)) {'c','b'}", [0, 2, 4, 6]),
        ("replica_groups={}", list(range(8))),
    ],
)
def test_groups_in_every_form(text, group):
    assert first_group(text, 8) == group


def test_axes_of_devices():
    mesh = {"data": 2, "fsdp": 4, "tensor": 2}
    assert axes_of([(0, 1)], mesh) == ("tensor",)
    assert axes_of([(0, 2), (6, 0)], mesh) == ("fsdp",)
    assert axes_of([(0, 8)], mesh) == ("data",)
    assert axes_of([(0, 11)], mesh) == ("data", "fsdp", "tensor")


COLLECTIVES = """%x = f32[8,16]{1,0} parameter(0)
%gathered = f32[32,16]{1,0} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
%started = (f32[8,16]{1,0}, f32[16,16]{1,0}) all-gather-start(%x), channel_id=2, replica_groups={{0,1},{2,3},{4,5},{6,7}}
%done = f32[16,16]{1,0} all-gather-done(%started)
%reduced = (f32[8,16]{1,0}, f32[4]{0}) all-reduce(%x, %x), channel_id=3, replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%add
%scattered = f32[2,16]{1,0} reduce-scatter(%x), channel_id=4, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
%moved = (f32[8,16]{1,0}, f32[8,16]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=5, source_target_pairs={{0,1}}
%alone = f32[8,16]{1,0} all-reduce(%x), channel_id=6, replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
ROOT %dealt = f32[8,16]{1,0} all-to-all(%x), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}"""


def test_what_a_device_sends():
    module = program(COLLECTIVES)
    found = find_traffic(module, Runs({"main": 3}, ()), {"fsdp": 4, "tensor": 2})
    x = 8 * 16 * 4
    assert sorted(found, key=lambda each: (each.operation, each.axes)) == [
        Traffic("all-gather", ("fsdp",), 3, 3 * 4 * x * 3 / 4),
        Traffic("all-gather", ("tensor",), 3, 3 * 2 * x / 2),
        Traffic("all-reduce", ("fsdp",), 3, 3 * 2 * (x + 16) * 3 / 4),
        Traffic("all-to-all", ("fsdp", "tensor"), 3, 3 * x * 7 / 8),
        Traffic("collective-permute", ("tensor",), 3, 3 * x),
        Traffic("reduce-scatter", ("fsdp",), 3, 3 * x * 3 / 4),
    ]


def test_what_slices_send_one_another():
    """Each of 2 slices sends its array of 512 bytes: half of the sum twice, the whole for a gather, half for a scatter."""
    kinds = ("ALL_REDUCE", "ALL_GATHER", "REDUCE_SCATTER")
    sends = "\n".join(
        f"  %send.{number} = (f32[128]{{0}}, u32[], token[]) send(%x, %after), channel_id={number}, is_host_transfer=true, "
        f'frontend_attributes={{_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="{kind}"}}'
        for number, kind in enumerate(kinds)
    )
    text = f"""
ENTRY %main (x: f32[128]) -> f32[128] {{
  %x = f32[128]{{0}} parameter(0)
  %after = token[] after-all()
{sends}
  %other = (f32[128]{{0}}, u32[], token[]) send(%x, %after), channel_id=9, is_host_transfer=true
  ROOT %y = f32[128]{{0}} negate(%x)
}}
"""
    module = hlo.parse(text)
    assert find_traffic(module, Runs({"main": 3}, ()), {"slices": 2, "fsdp": 4}) == [
        Traffic("all-reduce", ("slices",), 3, 3 * 512),
        Traffic("all-gather", ("slices",), 3, 3 * 512),
        Traffic("reduce-scatter", ("slices",), 3, 3 * 256),
    ]


def test_the_pieces_of_one_operation_count_once():
    piece = """
%piece.N (p: f32[8]) -> f32[16] {
  %p = f32[8]{0} parameter(0)
  ROOT %g = f32[16]{0} all-gather(%p), channel_id=4, replica_groups=[1,2]<=[2]
}
"""
    entry = """
ENTRY %main (x: f32[8]) -> f32[16] {
  %x = f32[8]{0} parameter(0)
  %first = f32[16]{0} fusion(%x), kind=kCustom, calls=%piece.1
  ROOT %second = f32[16]{0} fusion(%x), kind=kCustom, calls=%piece.2
}
"""
    module = hlo.parse("".join([*(piece.replace("N", number) for number in "12"), entry]))
    assert find_traffic(module, count_runs(module), {"fsdp": 2}) == [
        Traffic("all-gather", ("fsdp",), 1, 32.0)
    ]


def test_an_all_reduce_that_is_one_with_its_slice_is_a_reduce_scatter():
    text = """
%all-reduce-scatter (p: f32[8]) -> f32[4] {
  %p = f32[8]{0} parameter(0)
  %sum = f32[8]{0} all-reduce(%p), channel_id=4, replica_groups=[1,2]<=[2]
  %i = s32[] constant(0)
  ROOT %part = f32[4]{0} dynamic-slice(%sum, %i), dynamic_slice_sizes={4}
}

ENTRY %main (x: f32[8]) -> f32[4] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[4]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter
}
"""
    module = hlo.parse(text)
    assert find_traffic(module, count_runs(module), {"fsdp": 2}) == [
        Traffic("reduce-scatter", ("fsdp",), 1, 16.0)
    ]


def test_bytes_of_memory():
    text = """HloModule m

%sliced (p0: f32[12,64], p1: s32[], p2: f32[64]) -> f32[64] {
  %p0 = f32[12,64]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %p2 = f32[64]{0:S(1)} parameter(2)
  %part = f32[1,64]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,64}
  %row = f32[64]{0} bitcast(%part)
  ROOT %sum = f32[64]{0} add(%row, %p2)
}

%stored (p0: f32[12,64], p1: f32[1,64], p2: s32[]) -> f32[12,64] {
  %p0 = f32[12,64]{1,0} parameter(0)
  %p1 = f32[1,64]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  ROOT %all = f32[12,64]{1,0} dynamic-update-slice(%p0, %p1, %p2, %p2)
}

ENTRY %main (x: f32[12,64], i: s32[], y: f32[64]) -> f32[12,64] {
  %x = f32[12,64]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %y = f32[64]{0} parameter(2)
  %moved = (f32[64]{0:S(1)}, f32[64]{0}, u32[]) copy-start(%y)
  %near = f32[64]{0:S(1)} copy-done(%moved)
  %row = f32[64]{0} fusion(%x, %i, %near), kind=kLoop, calls=%sliced
  %wide = f32[1,64]{1,0} bitcast(%row)
  %kept = f32[12,64]{1,0} fusion(%x, %wide, %i), kind=kLoop, calls=%stored
  ROOT %product = f32[12,12]{1,0} dot(%kept, %kept), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
"""
    module = hlo.parse(text)
    row, whole, number = 64 * 4, 12 * 64 * 4, 4
    copied = row + 4
    sliced = row + number + row
    stored = row + number + row
    assert hbm_bytes(module, count_runs(module)) == copied + sliced + stored + 2 * whole + 12 * 12 * 4
