"""The IQ formats of ggml, whose codes are numbers of codebook entries: one entry gives 4 or 8 weights at once.

Owns: the codebooks and the readers of IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S. A codebook is a list of
points. Each is chosen from all points whose coordinates have one of a few values, in ascending order (the first
coordinate counts least), so one bit per possible point stores the whole choice. IQ2_XXS to IQ3_S store magnitudes as
points, and signs separately. Refuses to know: which type a tensor becomes.
Specs: QUANT-01. Source: ggml's grids `iq1s_grid` to `iq3s_grid`, which were found by search and follow no rule, and its
`dequantize_row_iq*`.

Powers of two are moved from coordinates to scales, so that codes are whole numbers. This changes no bit of a product.
Next: `ferrum.load.conversion`.
"""

from __future__ import annotations

import zlib
from base64 import b85decode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ferrum.load.bits import bits, fields, half, nibbles, words
from ferrum.load.scaled import Bytes, Floats, Scaled

Signs = NDArray[np.int8]

HALF, EIGHTH = np.float32(0.5), np.float32(0.125)


@dataclass(frozen=True)
class Codebook:
    """The values that a coordinate can have, the number of coordinates of a point, and the chosen points: one bit for
    each possible point, the lowest bit of a byte first, compressed by zlib, in base 85."""

    values: tuple[int, ...]
    dimensions: int
    chosen: str

    @cached_property
    def points(self) -> NDArray[np.int8]:
        """-> int8 [points, dimensions]"""
        packed = np.frombuffer(zlib.decompress(b85decode(self.chosen)), np.uint8)
        numbers = np.flatnonzero(np.unpackbits(packed, bitorder="little"))
        places = len(self.values) ** np.arange(self.dimensions)
        points: NDArray[np.int8] = np.array(self.values, np.int8)[numbers[:, None] // places % len(self.values)]
        return points


_SIGN_BYTES = np.array([number | (number.bit_count() & 1) << 7 for number in range(128)], np.uint8)
"""Seven signs are stored, one bit each. The eighth is such that the number of minus signs is even."""


def _signs(field: Bytes) -> Signs:
    """uint8 [blocks, n] -> int8 [blocks, 8 n], 1 or -1: a set bit i means that weight i is negative."""
    return _sign(bits(field))


def _sign(is_negative: NDArray[np.integer]) -> Signs:
    """0 -> 1, 1 -> -1"""
    signs: Signs = np.int8(1) - np.int8(2) * is_negative.astype(np.int8)
    return signs


def _even_signs(numbers: NDArray[np.integer]) -> Signs:
    """The signs of 8 weights from 7 bits: [blocks, n] -> int8 [blocks, 8 n]"""
    return _signs(_SIGN_BYTES[numbers & 127])


def _looked_up(book: str, numbers: NDArray[np.integer]) -> NDArray[np.int8]:
    """Numbers of points [blocks, n] -> their coordinates, codes int8 [blocks, n * dimensions]"""
    codes: NDArray[np.int8] = CODEBOOKS[book].points[numbers].reshape(len(numbers), -1)
    return codes


def _odd(numbers: NDArray[np.integer]) -> Floats:
    """A stored group scale n stands for 2 n + 1: for 0, 1, 2, … read 1, 3, 5, …"""
    return (2 * numbers.astype(np.float32)) + 1


def _shifted(numbers: NDArray[np.integer], *shifts: int) -> NDArray[np.integer]:
    """Each number, shifted right by each of `shifts`: [blocks, n] -> [blocks, n * shifts]. Callers use the low bits."""
    parts: NDArray[np.integer] = numbers[:, :, None] >> np.array(shifts, numbers.dtype)
    return parts.reshape(len(numbers), -1)


def _above(low: Bytes, high: NDArray[np.integer]) -> NDArray[np.integer]:
    """Numbers made of a low byte and of bits above it, which are stored apart."""
    return low.astype(np.uint16) | high.astype(np.uint16) << 8


def _iq1_s(blocks: Bytes) -> Scaled:
    """All points of a group are shifted by an eighth, up or down."""
    scale, low, packed = fields(blocks, 2, 32, 16)
    groups = words(packed, "<u2")  # [blocks, 8]: 4 x 3 high bits, 3 bits of scale, a sign
    numbers = _above(low, _shifted(groups, 0, 3, 6, 9) & 7)
    shifts = np.repeat(_sign(groups >> 15), 32, axis=1)
    return Scaled(half(scale) * EIGHTH, _looked_up("IQ1_S", numbers) + shifts, _odd(groups >> 12 & 7))


def _iq1_m(blocks: Bytes) -> Scaled:
    """Each point is shifted by an eighth, up or down."""
    low, high, packed = fields(blocks, 32, 16, 8)
    groups = words(packed, "<u2")  # [blocks, 4]: 4 scales of 3 bits, 4 bits of the block's float16 scale
    quarters = groups >> 12 << np.array([0, 4, 8, 12], np.uint16)
    scale = half(np.bitwise_or.reduce(quarters, axis=1, keepdims=True).view(np.uint8))
    parts = _shifted(high, 0, 4)  # [blocks, 32]: 3 high bits, a sign
    codes = _looked_up("IQ1_S", _above(low, parts & 7)) + np.repeat(_sign(parts >> 3 & 1), 8, axis=1)
    return Scaled(scale * EIGHTH, codes, _odd(_shifted(groups, 0, 3, 6, 9) & 7))


def _iq2_xxs(blocks: Bytes) -> Scaled:
    scale, packed = fields(blocks, 2, 64)
    pairs = packed.reshape(len(blocks), 8, 2, 4)  # for 32 weights: four numbers of points, one word
    numbers, groups = pairs[:, :, 0].reshape(len(blocks), 32), words(pairs[:, :, 1].reshape(len(blocks), 32), "<u4")
    codes = _looked_up("IQ2_XXS", numbers) * _even_signs(_shifted(groups, 0, 7, 14, 21))
    return Scaled(half(scale) * EIGHTH, codes, _odd(groups >> 28))


def _iq2_xs(blocks: Bytes) -> Scaled:
    scale, packed, scales = fields(blocks, 2, 64, 8)
    numbers = words(packed, "<u2")
    codes = _looked_up("IQ2_XS", numbers & 511) * _even_signs(numbers >> 9)
    return Scaled(half(scale) * EIGHTH, codes, _odd(nibbles(scales, 1)))


def _iq2_s(blocks: Bytes) -> Scaled:
    scale, low, signs, high, scales = fields(blocks, 2, 32, 32, 8, 8)
    numbers = _above(low, _shifted(high, 0, 2, 4, 6) & 3)
    return Scaled(half(scale) * EIGHTH, _looked_up("IQ2_S", numbers) * _signs(signs), _odd(nibbles(scales, 1)))


def _iq3_xxs(blocks: Bytes) -> Scaled:
    scale, numbers, packed = fields(blocks, 2, 64, 32)
    groups = words(packed, "<u4")
    codes = _looked_up("IQ3_XXS", numbers) * _even_signs(_shifted(groups, 0, 7, 14, 21))
    return Scaled(half(scale) * HALF, codes, _odd(groups >> 28))


def _iq3_s(blocks: Bytes) -> Scaled:
    scale, low, high, signs, scales = fields(blocks, 2, 64, 8, 32, 4)
    codes = _looked_up("IQ3_S", _above(low, bits(high))) * _signs(signs)
    return Scaled(half(scale), codes, _odd(nibbles(scales, 1)))


CODEBOOK_READERS: dict[str, Callable[[Bytes], Scaled]] = {
    "IQ1_S": _iq1_s,
    "IQ1_M": _iq1_m,
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
}
"""The reader of each ggml type."""

CODEBOOKS: dict[str, Codebook] = {
    "IQ1_S": Codebook(
        (-8, 0, 8),
        8,
        "c-k#eK}(!R7=CxE;dM-9V?RN1diSfb(^(PgE$L;EU0C#DLh=VZ*|bQ>IZZw%yXlwN6ha`hG?#HO$v6$G@ldv(umMk2dT8mb2WdTox*h^v8Vt"
        "nDuD#8?@Vw9Syw7v(LR2?w<}y}3b9YJG^C&5*&qs>Nl?x;NhAB!%0hRecnsm$a2YwJ@;QqccSPG~@n#@N5uBY$^gNY22s7}?HYgoxmY#Y+!A"
        "jh1yxWA4l1OzVO1-XRyWBes^wA;LAoBq<x!%nuPhFWp9`{&R@7DG%<XIwD^Is3Q$Jf@<B<<hd(0^?jzIHG8vQn*?-$Ub(LsHW&@kYNcQ%|}d"
        "P%c;av8KJU^mWiJv*28-WD<$YEG%#}+D!ES;XeDuFD(VlG#i@A4$V;H%7rH52w&LB_pg1xSvl=L<CZ@9?{WdkSxbxSuMq|l64F4MqT|O(RS}"
        "O@H(bLXvHn!_OntvSw2GXTKiD_6XGLxujp0!)qyF+V=7Bv?g3oFy??D1-6?{(2le%HQrc>Le(m#@Cb_P%)g$;r#{<KcsUbe#9?p_<1{H>jE?"
        "+1SCIq;Fwj@yPMjA_U90?}vdY$)D1%>fQq-z{36HBT$I&mG*v%J#A~V%aSj@pZtCEAg}V1eou`2@uUxU_YQ=)6;l3U7EjmAKr#y2F0kdO91c"
        "}@u6ikZ68>90+)KINV7E3oVy0wcNC7Qg*Gnz$6Ckekcj5w;yQl$8BcV}uIeIA*;9XR~L2uzcrHYS+2)y-rqrtcg6e{stpn$cM#il(dTBx(R&"
        "0u-;P1DmAvG}u@dX;b%ns9v~6p49X^c}lqEMlIFjzJBbrp$X4T{{D_p5YV7e^~xM<^E7<_56qcAaL=FI+lT|4v2#Y&dpW2-Egd@Fdf5G@Dhe"
        "eu*|v(bMFD;1sQ1",
    ),
    "IQ2_XXS": Codebook(
        (8, 25, 43),
        8,
        "c-nPRORB^$43oj#tB`je2YP^R=KfcCw)5@K5e=lV<VbEmf91ogR%p3E0BR^O#16P=^@J3)+t0mx___f>P^zDolEn6;is&dxI!#Zg_{KuzkVd"
        "4Mw`?l*l~*(z5~c8Qj-!-YZym34v`$TQ4<4*~)dpL;rq|+W4irx`d$&)6^vGb7UkLBrzcFbHqcf>sMFwRxr;MTG;*}m%Qlby-@@TSk)X7om@"
        "@#uKQIjUUWQ&$2&y}*gX5TV=Bc|Cuh1wL(2Kn3A3Yj<N%;gblzhT7_jxp@MF=lA5st5R^Hl2J=^JV`E{Z0D^#$6R7",
    ),
    "IQ2_XS": Codebook(
        (8, 25, 43),
        8,
        "c-mc2TdsvL2pkgnkBRPwCicH3cK=&BJX-bM<{ZTW!^|+oxJIi-qkD|rsuaR~iB<*?x~C4>8J0pJW<V>X*vo#SY&(-c)w(<-fCU6QVt|)*=>o"
        "J=N8h~B3mmYKBw*Y)Ca<s*uvOak7T*la5<g=kAh?T96(5+bR(Mt@J=L5^n!u1sF+~=p=RjVCGbM+vDH*59tF!>kC`)-u3GzO}jM8X_r-*1yt"
        "ubG*&a^iqGs?p-do}D8x2NWXU?%O)=7t88q040RdJ=Ak)9T+$YBcFD31^6BC_W+mG1}iEA-T}Oj@u6-pQ1yByIl9%`W3mW#F%j~<yh(N0zSL"
        "~oH^Zy%}}tQx4=M73#xoc?jNErTmD?iDs40;(&MG>YYMNuDE=SK;cc#9vM%q_=>7msuqjC",
    ),
    "IQ2_S": Codebook(
        (8, 25, 43),
        8,
        "c-n1JU5W-F3~NE(E9iYHjPDBe{#V(wI=kPpE5rQ7#3X8F%Z9aF@G^(h-0EI3Em0|W3^QwctZ7zp0a8G#rYWS&oF&YfEj@sgh^u5FBBgC>LAk"
        "BEEtarKv-X}c)kMD5E9g)N*35uFS6j&;COQ!QC2=T0oAzp}=fs8f?3xctXeG?g^dQAA!2(KVP=j1x!<Qgx@l7F)Pu!TMd$m>{ZzEray(N$Az"
        "Rb24)#*U9zYZZF^+2!@EVQ9?ARiEH!J<ErE8usn4?()-BQhW*1pE<<S|Z6aT82aQO}QP4+el6zUY~*z7~Sl6pK?p!Q_DMIhH4w7?joIO9P^#"
        "Dw9CRS7mu8OBC|vDii4FoWN_zK9m?6y$}qXC*pyH_2f!)+bXep&HXz~CYasM7Fd3(JhmM~KIbkHJ7yU4;E692~{FNElHOf~Fzm+TBn!W(Jyj"
        "C6",
    ),
    "IQ3_XXS": Codebook(
        (2, 6, 10, 14, 18, 22, 26, 31),
        4,
        "c-l=-F%H5o3_M%0RAmZ7_lgPeigaLyA4Q!IuVCbv_?)J2Rn;aw-<^~BWtxCXwzFx0%xW)eST<YW5KL&L;j#hAAHoX-c)&}FY<X@1m|7IGsjr"
        "X>q7@bAuHrcP3L2_`6x)_>^v5;&o?@Fdagv_Uo9H*utGOGEJ93R6P|L2rgx{U}Y-UnrS3sKYtPIbF!WdDS7|dsT<9UQCqzhJe8+4kK5km%Xv"
        "Hjm=J(sMgqk-e3v^zjTJayVggoDWMJzTWE4a0T)3l-9P!ydlNePrBA?Xny*@kmBo4W|8$?wEo20v5Uy_5",
    ),
    "IQ3_S": Codebook(
        (1, 3, 5, 7, 9, 11, 13, 15),
        4,
        "c-k#d!AiqG5PdVu!e&pqA>uXNMyUCUt<-~hDT4SrX{pfmmf{D9Rs{Q#&TgE;z`Qr}-rMBob#A|%IbF{W(Id*&Lkwq!%0~0(%@Ao{OU0lD_x2"
        "OXCI^OquXIKLt}o^pYnG?L6&oz+9HeSVPSrN(A}t!YmF^Xmp*3Qy-5G8(e|b5Y-VC?q(AA>+32wuC)HmEXp@c1}PT|h83}iuXSwt^ePGkv?U"
        "+Lf3a_=1ov?9@{igP&9v4ypFswx3&TJZ@M2_=SuX>*z&qp%+CoXl)ge8!drA@5Agyn!FG+()?*sDei}n1QT95(J|p-wR7#Aht{0!Hx!aZfy;"
        "cl!bD4D3uqR(zW`GY5;6>@R{_|3X$jRqNR^eu)^e<Ll^vCYlKPU1;QQ+o$IB(hKom+bHx0SXmXXwyZnVo8~6jd#wQ>",
    ),
}
"""The codebook of each type; IQ1_M uses that of IQ1_S. Coordinates of IQ1_S are eighths, those of IQ3_XXS halves."""
