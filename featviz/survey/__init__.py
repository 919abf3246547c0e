"""What a stream of images says of many units at once, in one pass and constant memory.

:mod:`~featviz.survey.dataset` yields images, :mod:`~featviz.survey.readout` the values of all the
units, :mod:`~featviz.survey.ranking`, :mod:`~featviz.survey.spread` and
:mod:`~featviz.survey.correlation` keep what is asked of them, :mod:`~featviz.survey.album` the
images that rank, and :mod:`~featviz.survey.receptive` tells where in them a unit looks.
"""
