from sklearn.utils.estimator_checks import parametrize_with_checks

import softly


@parametrize_with_checks([softly.SoftmaxClassifier()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)
