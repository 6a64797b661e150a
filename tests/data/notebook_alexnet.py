"""A network as the articles' notebook writes it: its own layers, temperature left at its default of 30."""

import paddle
import paddle.nn.functional as F
from paddle import nn


class RoutingAttention(nn.Layer):
    def __init__(self, inplanes, num_experts, temperature=30):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.net = nn.Sequential(
            nn.Conv2D(inplanes, inplanes // 4, 1), nn.ReLU(), nn.Conv2D(inplanes // 4, num_experts, 1)
        )
        self.temperature = temperature

    def forward(self, x):
        y = self.net(self.avgpool(x))
        return F.softmax(y.reshape((x.shape[0], -1)) / self.temperature, axis=-1)


class DYConv2D(nn.Layer):
    def __init__(
        self,
        inplanes,
        outplanes,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias_attr=None,
        num_experts=4,
    ):
        super().__init__()
        self.inplanes = inplanes
        self.outplanes = outplanes
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.num_experts = num_experts
        self.routing = RoutingAttention(inplanes, num_experts)
        self.weight = self.create_parameter([num_experts, outplanes, inplanes // groups, kernel_size, kernel_size])
        self.bias = None if bias_attr is False else self.create_parameter([num_experts, outplanes], is_bias=True)

    def forward(self, x):
        b, c, h, w = x.shape
        attention = self.routing(x)
        x = x.reshape((1, b * c, h, w))
        weight = paddle.mm(attention, self.weight.reshape((self.num_experts, -1)))
        weight = weight.reshape((b * self.outplanes, c // self.groups, self.kernel_size, self.kernel_size))
        bias = None if self.bias is None else paddle.mm(attention, self.bias).reshape((-1,))
        y = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups=self.groups * b)
        return y.reshape((b, self.outplanes, y.shape[-2], y.shape[-1]))


class AlexNet_DY(nn.Layer):
    def __init__(self, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2D(3, 48, kernel_size=11, stride=4, padding=5),
            nn.BatchNorm2D(48),
            nn.ReLU(),
            nn.MaxPool2D(kernel_size=3, stride=2),
            nn.Conv2D(48, 128, kernel_size=5, padding=2),
            nn.BatchNorm2D(128),
            nn.ReLU(),
            nn.MaxPool2D(kernel_size=3, stride=2),
            DYConv2D(128, 192, kernel_size=3, stride=1, padding=1, num_experts=2),
            nn.BatchNorm2D(192),
            nn.ReLU(),
            DYConv2D(192, 192, kernel_size=3, stride=1, padding=1, num_experts=2),
            nn.BatchNorm2D(192),
            nn.ReLU(),
            DYConv2D(192, 128, kernel_size=3, stride=1, padding=1, num_experts=2),
            nn.BatchNorm2D(128),
            nn.ReLU(),
            nn.MaxPool2D(kernel_size=3, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(3 * 3 * 128, 2048),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(2048, 2048),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(2048, num_classes),
        )

    def forward(self, x):
        x = self.features(x)
        x = paddle.flatten(x, start_axis=1)
        return self.classifier(x)
